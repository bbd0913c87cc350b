"""The loop that drives a solver over a batch, and how the solve of each sample ended.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance; ``residual`` is the
one measured at ``value`` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point_solvers import (
    Picard,
    Solver,
    Tolerance,
    tolerance_of,
)
from strategies.layers.solve_record import FIXED_POINT, SolveRecord

OnFailure = Literal["raise", "flag"]

# Copying what is left of a batch pays once a quarter of it has converged.
_COMPACT = 0.75
_FAR = 1e3  # times the norms of z0 and f(z0): so far out any step is small beside the iterate
_SLOWING = 1.5  # a residual that falls geometrically falls by twice as much in the second half


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
            the first dimension; converged: at most rtol. Of a sample that ran away, see
            ``runaway_error``, the estimated relative error of ``value``.
        history: (most steps, B) the residual at each evaluation, or None where not asked for.
    """

    value: Tensor
    converged: Tensor
    steps: Tensor
    residual: Tensor
    history: Tensor | None = None


@dataclass(frozen=True)
class Report:
    """Where the end of a solve is reported.

    Args:
        kind: what is solved, for the record and the error.
        on_failure: "raise", or "flag" to return whatever was reached.
        record: None where no record is open.
    """

    kind: str
    on_failure: OnFailure
    record: SolveRecord | None

    def conclude(
        self,
        tolerance: Tolerance,
        value: Tensor,
        residual: Tensor,
        on_the_way: Tensor,
        steps: Tensor,
        history: Tensor | None = None,
    ) -> Solution:
        """The solution, recorded; arguments as its attributes.

        Args:
            on_the_way: (2, B) the residuals after a quarter and after half of the steps allowed.

        Raises:
            ConvergenceError: where a sample did not converge and ``on_failure`` is "raise".
        """
        solution = Solution(value, residual <= tolerance.rtol, steps, residual, history)
        if self.record is not None:
            self.record.add(self.kind, steps, residual, solution.converged)
            if self.record.details is not None and self.kind == FIXED_POINT:
                self.record.details.append((self.kind, solution))
        if self.on_failure == "flag" or bool(solution.converged.all()):
            return solution
        samples = (~solution.converged).nonzero().squeeze(1).tolist()
        failed = residual[samples].tolist()
        shown = ", ".join(f"{s} ({r:.1e})" for s, r in zip(samples[:8], failed, strict=False))
        raise ConvergenceError(
            f"{self.kind}: {len(failed)} of {len(residual)} samples did not reach "
            f"rtol={tolerance.rtol:g}: sample (residual) {shown}"
            f"{', ...' if len(failed) > 8 else ''}. "
            f"{_remedy(solution, tolerance, on_the_way)}",
            samples,
            failed,
        )


def _remedy(solution: Solution, tolerance: Tolerance, on_the_way: Tensor) -> str:
    """What to do about a failed solve, from how its residual moved."""
    residual, most = solution.residual, tolerance.max_steps
    broken = ~residual.isfinite()
    if bool((solution.steps[~solution.converged & ~broken] < most).any()):
        return "The iterates run away as the residual falls: f seems to have no fixed point."
    if bool((broken & (solution.steps == 1)).any()):
        return "f is not finite at the first iterate: look for NaN or infinity in its inputs."
    if bool(broken.any()):
        return "The iterates diverge: f is no contraction here; bound its weights, or damp it."
    if most == 1:
        return "max_steps=1 leaves no room: raise it."
    worst = int(residual.argmax())
    early, before, after = (float(each[worst]) for each in (*on_the_way, residual))
    rate = (after / before) ** (1 / (most - most // 2))
    if rate > 0.9999:
        return (
            f"The residual does not fall ({before:.1e} after {most // 2} steps, {after:.1e} after "
            f"{most}): f is no contraction here, or rounds too coarsely; bound its weights, damp "
            f"it, take Broyden(), or loosen rtol."
        )
    if early > 0 and math.log(after / before) > _SLOWING * math.log(before / early):
        return (
            f"The residual falls ever more slowly ({early:.1e}, {before:.1e} and {after:.1e} after "
            f"{most // 4}, {most // 2} and {most} steps), as where f has no fixed point or has "
            f"slope 1 there: look at f before you raise max_steps or take Anderson() or Broyden()."
        )
    needed = most + math.ceil(1.1 * math.log(tolerance.rtol / after) / math.log(rate))
    return f"At its rate of late, {rate:.4f} a step, max_steps={needed} would do."


def runaway_error(
    gap: Tensor, size: Tensor, start: Tensor, gap_before: Tensor, moved: Tensor
) -> Tensor:
    """Relative errors (B,) of iterates that seem converged but ran away; zero for all others.

    ``sqrt(1 + z^2)`` comes as near to z as one likes, far out. There the relative residual says
    little, and the secant through the last two evaluations tells how far away a root would be.

    Args:
        gap, size, gap_before: norms of ``f(z) - z``, of ``f(z)``, of the ``f(z) - z`` before.
        start: norms of z0 and of f(z0), added.
        moved: norms of the difference of the two iterates.
    """
    rounded = torch.maximum(gap, torch.finfo(gap.dtype).eps * size)
    error = rounded * moved / (gap_before - gap).abs() / size
    return torch.where((size > _FAR * start) & ~(error < 0.1), error, 0.0)


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


def solve(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    report: Report,
    inputs: tuple[Tensor, ...] = (),
    history: bool = False,
    absolute: bool = True,
) -> Solution:
    """Drive the solver until each sample has converged, failed, or used up its steps.

    A sample that is done changes no more; given ``inputs``, it is soon evaluated no more either.

    Args:
        f: maps (B, ...) to the same shape, each sample for itself.
        z0: (B, ...) the first iterate.
        inputs: tensors (B, ...) that f takes after z.
        history: keep the residual of each evaluation.
        absolute: whether the solver's ``atol`` counts.

    Raises:
        ConvergenceError: where a sample did not converge and ``on_failure`` is "raise".
        TypeError, ValueError: where the tolerance, or what f returns, does not fit z0.
    """
    tolerance = tolerance_of(solver, z0.dtype)
    if not absolute:
        tolerance = tolerance._replace(atol=0.0)
    B, floor = z0.shape[0], tolerance.atol / tolerance.rtol
    value = z0.clone(memory_format=torch.contiguous_format)
    residual = z0.new_zeros(B)
    steps = torch.zeros(B, dtype=torch.long, device=z0.device)
    rows = torch.arange(B, device=z0.device)  # which samples are evaluated
    active = torch.ones(B, dtype=torch.bool, device=z0.device)  # which of those count
    on_the_way, traced = z0.new_zeros(2, B), []
    z, gap, step = z0, torch.empty_like(value), solver.start(z0)
    watch = _Watch(tolerance, every_step=history or not _is_plain(solver))
    for count in range(1, (tolerance.max_steps if B else 0) + 1):
        image = f(z, *inputs)
        if count == 1:
            check_image(image, z)
        if count < watch.due:
            z = image
            continue
        gap = torch.sub(image, z, out=gap)  # a fresh tensor a step costs more than the difference
        size, scale = norm(gap), norm(image)
        relative = size / (scale + floor).clamp_min(torch.finfo(z.dtype).tiny)
        if count == 1:
            start, before = norm(z) + scale, (z, size)
        least, ended = _look(relative, active, tolerance.rtol, count == tolerance.max_steps)
        watch.note(count, least)
        if count in tolerance.marks:
            on_the_way[tolerance.marks.index(count), rows] = relative
        if history:
            traced.append(residual.index_put((rows[active],), relative[active]))
        if ended is not None:
            here, still = ended
            at = rows[here]
            value.index_copy_(0, at, z.index_select(0, here))
            error = runaway_error(size, scale, start, before[1], norm(z - before[0]))
            residual[at], steps[at] = torch.maximum(relative, error)[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            if inputs and len(still) <= _COMPACT * len(rows):
                z, image, gap, size = z[still], image[still], gap[still], size[still]
                inputs = tuple(x[still] for x in inputs)
                step.keep(still)
                start = start[still]
                rows, active = rows[still], active[still]
        before = z, size
        z = step(z, image, gap, size)
    trace = torch.stack(traced) if traced else None
    return report.conclude(tolerance, value, residual, on_the_way, steps, trace)


def solve_linear(
    pull: Callable[[Tensor], Tensor], v: Tensor, solver: Solver, report: Report
) -> Solution:
    """Solve ``g = v + pull(g)`` for a linear ``pull``; errors as in `solve`.

    Only ``rtol`` counts: v may have any scale.
    """
    if _is_plain(solver):
        return _sum_series(pull, v, tolerance_of(solver, v.dtype), report)
    return solve(lambda g: v + pull(g), v, solver, report, absolute=False)


def _sum_series(
    pull: Callable[[Tensor], Tensor], v: Tensor, tolerance: Tolerance, report: Report
) -> Solution:
    """The plain iteration from g = v, as the sum of its differences.

    Its iterates are the partial sums of ``v + pull(v) + pull(pull(v)) + ...`` and their gap is the
    next term: adding terms up does the same at a third of what it costs beyond ``pull``.
    """
    B, tiny = v.shape[0], torch.finfo(v.dtype).tiny
    value = v.clone(memory_format=torch.contiguous_format)
    residual, on_the_way = v.new_zeros(B), v.new_zeros(2, B)
    steps = torch.zeros(B, dtype=torch.long, device=v.device)
    active = torch.ones(B, dtype=torch.bool, device=v.device)
    term, watch = v, _Watch(tolerance)
    for count in range(1, (tolerance.max_steps if B else 0) + 1):
        term = pull(term)
        if count < watch.due:
            value += term
            continue
        relative = norm(term) / norm(value).clamp_min(tiny)
        least, ended = _look(relative, active, tolerance.rtol, count == tolerance.max_steps)
        watch.note(count, least)
        if count in tolerance.marks:
            on_the_way[tolerance.marks.index(count)] = relative
        if ended is not None:
            here, still = ended
            residual[here], steps[here] = relative[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            ended_ones = (~active).view(-1, *[1] * (term.ndim - 1))
            term = term.masked_fill(ended_ones, 0.0)  # what has ended grows no more
        value += term
    return report.conclude(tolerance, value, residual, on_the_way, steps)


def _look(
    relative: Tensor, active: Tensor, rtol: float, last: bool
) -> tuple[float, tuple[Tensor, Tensor] | None]:
    """The smallest of the residuals (B,), and if any active samples end, which, and which go on.

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

    Measuring costs a quarter of a cheap f. Far from the tolerance it is left out for most of the
    steps that the fastest sample still needs at its rate so far, but for no more steps than have
    been taken.
    """

    def __init__(self, tolerance: Tolerance, every_step: bool = False):
        self.rtol, self.every_step = tolerance.rtol, every_step
        self.marks = (*tolerance.marks, tolerance.max_steps)
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
