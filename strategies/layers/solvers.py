"""Solvers for ``z = f(z)`` on a batch, and the loop that drives them.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance; ``residual`` is the
one measured at ``value`` itself.

A solver is a frozen dataclass of settings. Its ``start`` makes a *step*: an object that turns one
evaluation of f into the next iterate. ``solve`` drives any of them, keeps time for each sample, and
says how each one ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from strategies.layers.record import SolveRecord

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


class Step(Protocol):
    """Goes from one iterate to the next, and may keep what it saw."""

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        """The next iterate from ``z``, ``image = f(z)``, ``gap = image - z``, its norm ``size``.

        ``gap`` is overwritten by the next evaluation: what is to be kept of it must be copied.
        """

    def keep(self, rows: Tensor) -> None:
        """Forget all samples but these."""


class Solver(Protocol):
    """Settings of a solver."""

    @property
    def rtol(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def max_steps(self) -> int: ...

    def start(self, z: Tensor) -> Step: ...


@dataclass(frozen=True)
class _Tolerances:
    """What all solvers share.

    Args:
        rtol, atol: a sample has converged at ``|f(z) - z| <= rtol * |f(z)| + atol``.
        max_steps: evaluations of f, at most.
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    max_steps: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.rtol < 1:
            raise ValueError(f"rtol must lie in (0, 1), got {self.rtol}")
        if not 0 <= self.atol < math.inf:
            raise ValueError(f"atol must be finite and not negative, got {self.atol}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True)
class Picard(_Tolerances):
    """The plain iteration ``z <- damping * z + (1 - damping) * f(z)``.

    Converges where f is a contraction, at its rate; no other step is as cheap.

    Args:
        damping: share of the old iterate in the next one, in [0, 1).
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping must lie in [0, 1), got {self.damping}")

    def start(self, z: Tensor) -> Step:
        return _PicardStep(self.damping)


class _PicardStep:
    def __init__(self, damping: float):
        self.damping = damping

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        return image - self.damping * gap if self.damping else image

    def keep(self, rows: Tensor) -> None:
        pass


@dataclass(frozen=True)
class Anderson(_Tolerances):
    """Anderson mixing, safeguarded (Walker & Ni, SIAM J. Numer. Anal. 49(4), 2011, section 1).

    The next iterate is ``sum_i a_i f(z_i)`` over the last iterates, with the weights, of sum one,
    that make ``|sum_i a_i (f(z_i) - z_i)|`` smallest. Where a mixed iterate does not reduce the
    residual, the plain step from the iterate before it is taken instead.

    Args:
        memory: how many iterates are mixed.
        ridge: weight of ``sum_i a_i^2 |f(z_i) - z_i|^2`` in that minimum; relative to each
            residual, so that it means the same early and late in the solve.
    """

    memory: int = 4
    ridge: float = 1e-12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 2:
            raise ValueError(f"memory must be at least 2, got {self.memory}")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge must be finite and not negative, got {self.ridge}")

    def start(self, z: Tensor) -> Step:
        return _AndersonStep(z, self.memory, self.ridge)


class _AndersonStep:
    def __init__(self, z: Tensor, memory: int, ridge: float):
        B, D = z.shape[0], z[0].numel()
        self.ridge = max(ridge, torch.finfo(z.dtype).eps)  # below it, Cholesky may break down
        self.images = z.new_zeros(B, memory, D)
        self.gaps = z.new_zeros(B, memory, D)
        self.gram = z.new_zeros(B, memory, memory)  # inner products of the gaps
        self.empty = z.new_ones(memory)
        self.count = 0
        self.safeguard = _Safeguard(z)

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        slot = self.count % self.empty.numel()
        self.count += 1
        self.empty[slot] = 0
        self.images[:, slot] = image.flatten(1)
        self.gaps[:, slot] = gap.flatten(1)
        # One row of the Gram matrix is new. As row times matrix, bmm is six times faster than as
        # matrix times column.
        row = torch.bmm(gap.flatten(1).unsqueeze(1), self.gaps.mT).squeeze(1)  # (B, memory)
        self.gram[:, slot] = row
        self.gram[:, :, slot] = row
        # Each gap scaled to norm one, an empty slot to zero: what is factorised are correlations.
        squares = self.gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(z.dtype).tiny)
        scale = squares.rsqrt() * (1 - self.empty)  # (B, memory)
        correlations = self.gram * (scale.unsqueeze(1) * scale.unsqueeze(2))
        correlations.diagonal(dim1=1, dim2=2).add_(self.empty + self.ridge)
        factor = torch.linalg.cholesky_ex(correlations).L
        weights = scale * torch.cholesky_solve(scale.unsqueeze(2), factor).squeeze(2)
        weights /= weights.sum(1, keepdim=True)
        mixed = torch.bmm(weights.unsqueeze(1), self.images).view_as(image)
        return self.safeguard(mixed, image, size)

    def keep(self, rows: Tensor) -> None:
        self.images, self.gaps = self.images[rows], self.gaps[rows]
        self.gram = self.gram[rows]
        self.safeguard.keep(rows)


@dataclass(frozen=True)
class Broyden(_Tolerances):
    """Broyden's good method on ``f(z) - z = 0``, safeguarded as `Anderson` is.

    Builds the inverse Jacobian from secants, as minus the identity plus one rank a step
    (Broyden, Math. Comp. 19, 1965, method 1), and starts it afresh when ``memory`` is full. Finds
    fixed points of maps that are no contractions as well.

    Args:
        memory: how many ranks are kept.
    """

    memory: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")

    def start(self, z: Tensor) -> Step:
        return _BroydenStep(z, self.memory)


class _BroydenStep:
    """Holds H = -I + sum_j u_j v_j', with s'Hy the denominator of each update."""

    def __init__(self, z: Tensor, memory: int):
        B, D = z.shape[0], z[0].numel()
        self.u = z.new_zeros(B, memory, D)
        self.v = z.new_zeros(B, memory, D)
        self.count = 0  # ranks in use
        self.last: tuple[Tensor, Tensor] | None = None  # z and gap of the evaluation before
        self.safeguard = _Safeguard(z)

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        point, error = z.flatten(1), gap.flatten(1)
        if self.last is not None:
            self._learn(point - self.last[0], error - self.last[1])
        self.last = point, error.clone()
        u, v = self.u[:, : self.count], self.v[:, : self.count]
        following = image.flatten(1) - _combine(_inner(error, v), u)  # z - H gap
        return self.safeguard(following.view_as(image), image, size)

    def _learn(self, s: Tensor, y: Tensor) -> None:
        """Make H y = s by the smallest change to H's inverse."""
        if self.count == self.u.shape[1]:
            self.count = 0
        u, v = self.u[:, : self.count], self.v[:, : self.count]
        Hy = _combine(_inner(y, v), u) - y
        sH = _combine(_inner(s, u), v) - s
        denominator = (sH * y).sum(1, keepdim=True)  # (B, 1)
        # A vanishing denominator would blow the update up: such a sample learns nothing here.
        size = torch.linalg.vector_norm(sH, dim=1) * torch.linalg.vector_norm(y, dim=1)
        usable = denominator.abs() > 1e-8 * size.unsqueeze(1)
        self.u[:, self.count] = torch.where(usable, (s - Hy) / denominator, 0.0)
        self.v[:, self.count] = sH
        self.count += 1

    def keep(self, rows: Tensor) -> None:
        self.u, self.v = self.u[rows], self.v[rows]
        if self.last is not None:
            self.last = self.last[0][rows], self.last[1][rows]
        self.safeguard.keep(rows)


def _inner(x: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of x (B, D) with vectors (B, k, D) -> (B, k)."""
    return torch.bmm(x.unsqueeze(1), vectors.mT).squeeze(1)


def _combine(weights: Tensor, vectors: Tensor) -> Tensor:
    """Sums of vectors (B, k, D) with weights (B, k) -> (B, D)."""
    return torch.bmm(weights.unsqueeze(1), vectors).squeeze(1)


class _Safeguard:
    """Takes an accelerated iterate back where it did not reduce the residual.

    The plain step from the iterate before is taken instead, and then stands whatever it brings.
    So of two evaluations at least one is worth a plain step, and a contraction converges.
    """

    def __init__(self, z: Tensor):
        self.size = z.new_full((z.shape[0],), math.inf)
        self.plain = torch.zeros_like(self.size, dtype=torch.bool)
        self.image = z

    def __call__(self, proposal: Tensor, image: Tensor, size: Tensor) -> Tensor:
        worse = (size >= self.size) & ~self.plain
        if worse.any():
            proposal[worse] = self.image[worse]
        self.size, self.plain, self.image = size, worse, image
        return proposal

    def keep(self, rows: Tensor) -> None:
        self.size, self.plain, self.image = self.size[rows], self.plain[rows], self.image[rows]


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
    first, traced = residual, []
    z, gap, step = z0, torch.empty_like(value), solver.start(z0)
    for count in range(1, (solver.max_steps if B else 0) + 1):
        image = f(z, *inputs)
        if count == 1:
            check_image(image, z)
        gap = torch.sub(image, z, out=gap)  # a fresh tensor a step costs more than the difference
        size, scale = norm(gap), norm(image) + floor
        relative = size / scale.clamp_min(torch.finfo(z.dtype).tiny)
        first = relative if count == 1 else first
        if history:
            traced.append(residual.index_put((rows[active],), relative[active]))
        # Not "at most": a residual that is NaN is done as well, and infinity soon is NaN.
        beyond = relative > solver.rtol
        if count == solver.max_steps or not beyond.all():
            closing = active if count == solver.max_steps else active & ~beyond
            at = rows[closing]
            value[at], residual[at], steps[at] = z[closing], relative[closing], count
            active = active & ~closing
            left = int(active.sum())
            if left == 0:
                break
            if inputs and left <= _COMPACT * len(rows):
                z, image, gap, size = z[active], image[active], gap[active], size[active]
                inputs = tuple(x[active] for x in inputs)
                step.keep(active)
                rows, active = rows[active], active[active]
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
        first,
        kind=kind,
        on_failure=on_failure,
        record=record,
    )


def sum_series(
    pull: Callable[[Tensor], Tensor],
    v: Tensor,
    solver: Picard,
    *,
    kind: str,
    on_failure: OnFailure = "raise",
    record: SolveRecord | None = None,
) -> Solution:
    """Solve ``g = v + pull(g)`` for a linear ``pull``, by the plain iteration.

    The iterates of `solve` would be the partial sums of ``v + pull(v) + pull(pull(v)) + ...``, and
    their gap the next term. To add up the terms is the same iteration, at a third of what it costs
    beyond ``pull``. Only ``rtol`` counts. Arguments and errors as in `solve`.
    """
    B, tiny = v.shape[0], torch.finfo(v.dtype).tiny
    value = v.clone(memory_format=torch.contiguous_format)
    residual = first = v.new_zeros(B)
    steps = torch.zeros(B, dtype=torch.long, device=v.device)
    active = torch.ones(B, dtype=torch.bool, device=v.device)
    term = v
    for count in range(1, (solver.max_steps if B else 0) + 1):
        term = pull(term)
        relative = norm(term) / norm(value).clamp_min(tiny)
        first = relative if count == 1 else first
        beyond = relative > solver.rtol
        if count == solver.max_steps or not beyond.all():
            closing = active if count == solver.max_steps else active & ~beyond
            residual[closing], steps[closing] = relative[closing], count
            active = active & ~closing
            if not active.any():
                break
            term = term.masked_fill(_like(~active, term), 0.0)  # what is closed grows no more
        value += term
    solution = Solution(value, residual <= solver.rtol, steps, residual)
    return conclude(solution, solver, first, kind=kind, on_failure=on_failure, record=record)


def conclude(
    solution: Solution,
    solver: Solver,
    first: Tensor,
    *,
    kind: str,
    on_failure: OnFailure,
    record: SolveRecord | None,
) -> Solution:
    """Report the solution, and raise where it failed; ``first`` (B,) are the first residuals."""
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
        f"{_mend(solution, solver, first)}",
        samples.tolist(),
        failed,
    )


def _mend(solution: Solution, solver: Solver, first: Tensor) -> str:
    """What to do about a failed solve, from how its residual moved."""
    residual, steps = solution.residual, solution.steps
    broken = ~residual.isfinite()
    if bool((broken & (steps == 1)).any()):
        return "f is not finite at the first iterate: look for NaN or infinity in its inputs."
    if bool(broken.any()):
        return "The iterates diverge: f is no contraction here; bound its weights, or damp it."
    worst = int(residual.argmax())
    start, end, taken = float(first[worst]), float(residual[worst]), int(steps[worst])
    if taken == 1:
        return "max_steps=1 leaves no room: raise it."
    rate = (end / start) ** (1 / (taken - 1))
    if rate > 0.999:
        return (
            f"The residual does not fall ({start:.1e} at first, {end:.1e} after {taken} steps): f "
            f"is no contraction here, or rounds too coarsely; bound its weights, damp it, take "
            f"Broyden(), or loosen rtol."
        )
    needed = taken + math.ceil(math.log(solver.rtol / end) / math.log(rate))
    return f"At its rate so far, {rate:.3f} a step, max_steps={needed} would do."


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
