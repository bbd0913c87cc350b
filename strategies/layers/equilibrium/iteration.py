"""The loop that drives a solver over a batch, and says how each sample ended.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance; ``residual`` is the
one measured at ``value`` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from strategies.layers.equilibrium.solvers import Picard, Solver
from strategies.layers.solve_record import SolveRecord

OnFailure = Literal["raise", "flag"]

# Rounding alone leaves a relative residual of a few units in the last place.
_REACHABLE = 10.0
# Copying what is left of a batch pays once a quarter of it has converged.
_COMPACT = 0.75


class ConvergenceError(RuntimeError):
    """A solve that did not reach its tolerance.

    Attributes:
        samples: positions in the batch of the samples that failed.
        residuals: their relative residuals (not finite where f was not).
    """

    def __init__(self, message: str, samples: Sequence[int], residuals: Sequence[float]):
        super().__init__(message)
        self.samples = tuple(samples)
        self.residuals = tuple(residuals)


@dataclass(frozen=True)
class Solution:
    """How the solve of ``z = f(z)`` ended, for each of B samples.

    Attributes:
        value: (B, ...) the fixed point; where not converged, the last iterate.
        converged: (B,) bool.
        steps: (B,) evaluations of f that the sample took.
        residual: (B,) ``|f(z) - z| / (|f(z)| + atol / rtol)`` at ``value``, 2-norms over all but
            the first dimension; converged: at most rtol.
        history: (most steps, B) the residual at each evaluation, or None where not asked for.
    """

    value: Tensor
    converged: Tensor
    steps: Tensor
    residual: Tensor
    history: Tensor | None = None


def solve(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    *,
    kind: str,
    inputs: tuple[Tensor, ...] = (),
    on_failure: OnFailure = "raise",
    record: SolveRecord | None = None,
    history: bool = False,
) -> Solution:
    """Drive the solver until each sample has converged, failed, or used up its steps.

    A sample that is done changes no more; given ``inputs``, it is soon evaluated no more either.

    Args:
        f: maps (B, ...) to the same shape, each sample for itself.
        z0: (B, ...) the first iterate.
        solver: settings.
        kind: what is solved, for the record and the error.
        inputs: tensors (B, ...) that f takes after z.
        on_failure: "raise", or "flag" to return whatever was reached.
        record: where to report.
        history: keep the residual of each evaluation.

    Raises:
        ConvergenceError: where a sample did not converge and ``on_failure`` is "raise".
        TypeError, ValueError: where the tolerance, or what f returns, does not fit z0.
    """
    check_tolerance(solver, z0.dtype)
    B, floor = z0.shape[0], solver.atol / solver.rtol
    value = z0.clone(memory_format=torch.contiguous_format)
    residual = z0.new_zeros(B)
    steps = torch.zeros(B, dtype=torch.long, device=z0.device)
    rows = torch.arange(B, device=z0.device)  # which samples are evaluated
    active = torch.ones(B, dtype=torch.bool, device=z0.device)  # which of those count
    midway, traced = residual.clone(), []
    z, gap, step = z0, torch.empty_like(value), solver.start(z0)
    watch = _Watch(solver, every_step=history or not _is_plain(solver))
    for count in range(1, (solver.max_steps if B else 0) + 1):
        image = f(z, *inputs)
        if count == 1:
            check_image(image, z)
        if count < watch.due:
            z = image
            continue
        gap = torch.sub(image, z, out=gap)  # a fresh tensor a step costs more than the difference
        size, scale = norm(gap), norm(image) + floor
        relative = size / scale.clamp_min(torch.finfo(z.dtype).tiny)
        least, ended = _look(relative, active, solver.rtol, count == solver.max_steps)
        watch.note(count, least)
        if count == solver.max_steps // 2:
            midway[rows] = relative
        if history:
            traced.append(residual.index_put((rows[active],), relative[active]))
        if ended is not None:
            here, still = ended
            at = rows[here]
            value.index_copy_(0, at, z.index_select(0, here))
            residual[at], steps[at] = relative[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            if inputs and len(still) <= _COMPACT * len(rows):
                z, image, gap, size = z[still], image[still], gap[still], size[still]
                inputs = tuple(x[still] for x in inputs)
                step.keep(still)
                rows, active = rows[still], active[still]
        z = step(z, image, gap, size)
    return conclude(
        Solution(
            value,
            residual <= solver.rtol,
            steps,
            residual,
            torch.stack(traced) if traced else None,
        ),
        solver,
        midway,
        kind=kind,
        on_failure=on_failure,
        record=record,
    )


def solve_linear(
    pull: Callable[[Tensor], Tensor],
    v: Tensor,
    solver: Solver,
    *,
    kind: str,
    on_failure: OnFailure = "raise",
    record: SolveRecord | None = None,
) -> Solution:
    """Solve ``g = v + pull(g)`` for a linear ``pull``; arguments and errors as in `solve`.

    Only ``rtol`` counts: v may have any scale.
    """
    if _is_plain(solver):
        return _sum_series(pull, v, solver, kind=kind, on_failure=on_failure, record=record)
    return solve(
        lambda g: v + pull(g),
        v,
        replace(solver, atol=0.0),  # type: ignore[type-var]
        kind=kind,
        on_failure=on_failure,
        record=record,
    )


def _sum_series(
    pull: Callable[[Tensor], Tensor],
    v: Tensor,
    solver: Solver,
    *,
    kind: str,
    on_failure: OnFailure,
    record: SolveRecord | None,
) -> Solution:
    """The plain iteration from g = v, as the sum of its differences.

    Its iterates are the partial sums of ``v + pull(v) + pull(pull(v)) + ...`` and their gap is the
    next term: adding terms up does the same at a third of what it costs beyond ``pull``.
    """
    B, tiny = v.shape[0], torch.finfo(v.dtype).tiny
    value = v.clone(memory_format=torch.contiguous_format)
    residual, midway = v.new_zeros(B), v.new_zeros(B)
    steps = torch.zeros(B, dtype=torch.long, device=v.device)
    active = torch.ones(B, dtype=torch.bool, device=v.device)
    term, watch = v, _Watch(solver)
    for count in range(1, (solver.max_steps if B else 0) + 1):
        term = pull(term)
        if count < watch.due:
            value += term
            continue
        relative = norm(term) / norm(value).clamp_min(tiny)
        least, ended = _look(relative, active, solver.rtol, count == solver.max_steps)
        watch.note(count, least)
        midway = relative if count == solver.max_steps // 2 else midway
        if ended is not None:
            here, still = ended
            residual[here], steps[here] = relative[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            term = term.masked_fill(_like(~active, term), 0.0)  # what is closed grows no more
        value += term
    solution = Solution(value, residual <= solver.rtol, steps, residual)
    return conclude(solution, solver, midway, kind=kind, on_failure=on_failure, record=record)


def _look(
    relative: Tensor, active: Tensor, rtol: float, last: bool
) -> tuple[float, tuple[Tensor, Tensor] | None]:
    """The smallest of the residuals (B,), and which active samples end and which go on, if any end.

    All that the host asks in a step, in one transfer: a GPU waits for each.
    """
    least = torch.nan
    if relative.device.type == "cpu":  # where nothing waits, and what is not needed is not computed
        least = float(relative.min())  # of a NaN it is NaN
        if least > rtol and not last:
            return least, None
    # Not "at most": a residual that is NaN is done as well, and infinity soon is NaN.
    closing = active if last else active & ~(relative > rtol)
    counts = torch.stack([relative.min(), closing.sum(), active.sum()]).tolist()
    least, ending, going = counts[0], int(counts[1]), int(counts[2] - counts[1])
    if least > rtol and not last:
        return least, None
    order = (closing.to(torch.int8) + active.to(torch.int8)).argsort(descending=True, stable=True)
    return least, (order[:ending], order[ending : ending + going])


class _Watch:
    """When the plain iteration is to measure its residual next.

    Measuring costs a quarter of a cheap f. Far from the tolerance the iteration goes on unwatched
    for most of the steps that its fastest sample still needs at the rate it has had, but for no
    more than it has taken.
    """

    def __init__(self, solver: Solver, every_step: bool = False):
        self.rtol, self.every_step = solver.rtol, every_step
        self.marks = (solver.max_steps // 2, solver.max_steps)
        self.due = 1
        self.last: tuple[int, float] | None = None

    def note(self, count: int, least: float) -> None:
        """Plan the next measurement after this one, of residuals from ``least``, at ``count``."""
        self.due = count + 1
        if self.every_step:
            return
        if self.last is not None and self.rtol < least < self.last[1]:
            rate = math.log(least / self.last[1]) / (count - self.last[0])
            ahead = min(int(0.9 * math.log(self.rtol / least) / rate), count)
            mark = min(m for m in (*self.marks, math.inf) if m > count)
            self.due = int(min(count + max(ahead, 1), mark))
        self.last = count, least


def _is_plain(solver: Solver) -> bool:
    return isinstance(solver, Picard) and solver.damping == 0


def conclude(
    solution: Solution,
    solver: Solver,
    midway: Tensor,
    *,
    kind: str,
    on_failure: OnFailure,
    record: SolveRecord | None,
) -> Solution:
    """Report the solution, and raise where it failed.

    ``midway`` (B,) are the residuals after half of the steps allowed.
    """
    if record is not None:
        record.add(kind, solution.steps, solution.residual, solution.converged)
    if on_failure == "flag" or bool(solution.converged.all()):
        return solution
    samples = (~solution.converged).nonzero().squeeze(1)
    failed = solution.residual[samples].tolist()
    shown = ", ".join(f"{s} ({r:.1e})" for s, r in zip(samples.tolist()[:8], failed, strict=False))
    raise ConvergenceError(
        f"{kind}: {len(failed)} of {len(solution.residual)} samples did not reach "
        f"rtol={solver.rtol:g}: sample (residual) {shown}{', ...' if len(failed) > 8 else ''}. "
        f"{_mend(solution, solver, midway)}",
        samples.tolist(),
        failed,
    )


def _mend(solution: Solution, solver: Solver, midway: Tensor) -> str:
    """What to do about a failed solve, from how its residual moved in the second half."""
    residual, most = solution.residual, solver.max_steps
    broken = ~residual.isfinite()
    if bool((broken & (solution.steps == 1)).any()):
        return "f is not finite at the first iterate: look for NaN or infinity in its inputs."
    if bool(broken.any()):
        return "The iterates diverge: f is no contraction here; bound its weights, or damp it."
    if most == 1:
        return "max_steps=1 leaves no room: raise it."
    worst = int(residual.argmax())
    before, after = float(midway[worst]), float(residual[worst])
    rate = (after / before) ** (1 / (most - most // 2))
    if rate > 0.9999:
        return (
            f"The residual does not fall ({before:.1e} after {most // 2} steps, {after:.1e} after "
            f"{most}): f is no contraction here, or rounds too coarsely; bound its weights, damp "
            f"it, take Broyden(), or loosen rtol."
        )
    needed = most + math.ceil(1.1 * math.log(solver.rtol / after) / math.log(rate))
    return f"At its rate of late, {rate:.4f} a step, max_steps={needed} would do."


def check_tolerance(solver: Solver, dtype: torch.dtype) -> None:
    """Refuse a tolerance that rounding keeps out of reach.

    Raises:
        TypeError: where the dtype is not real floating point.
        ValueError: where ``rtol`` lies below what it can reach.
    """
    if not dtype.is_floating_point:
        raise TypeError(f"the state must be real floating point, got {dtype}")
    reachable = _REACHABLE * torch.finfo(dtype).eps
    if solver.rtol < reachable:
        raise ValueError(
            f"rtol={solver.rtol:g} lies below the precision of {dtype}, which reaches about "
            f"{reachable:.0e}: loosen rtol in the solver and in the adjoint's, or use float64"
        )


def check_image(image: Tensor, z: Tensor) -> None:
    """Raises ValueError or TypeError where f does not keep the shape or the dtype."""
    if image.shape != z.shape:
        raise ValueError(f"f must keep the shape {tuple(z.shape)}, got {tuple(image.shape)}")
    if image.dtype != z.dtype:
        raise TypeError(
            f"f must keep the dtype {z.dtype}, got {image.dtype}: cast the first iterate, or the "
            f"parameters and inputs of f"
        )


def norm(values: Tensor) -> Tensor:
    """2-norms over all but the first dimension -> (B,)."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1)


def _like(flags: Tensor, values: Tensor) -> Tensor:
    """Flags (B,) shaped to be broadcast with values (B, ...)."""
    return flags.view(-1, *[1] * (values.ndim - 1))
