"""Solvers for z = f(z) on a batch: what each one does between two evaluations of f.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance, and ``residual`` is
the one measured at ``value`` itself.

A solver is a frozen dataclass of settings. Its ``start`` makes a *step*: an object that turns
``z``, ``f(z)`` and their difference into the next iterate, and that can let go of samples.
``solve`` drives any of them, keeps time for each sample and says how each one ended.
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
# Copying the rest of the batch to a smaller one pays once a quarter of it has converged.
_COMPACT = 0.75


class ConvergenceError(RuntimeError):
    """A solve that did not reach its tolerance.

    Attributes:
        samples: positions in the batch of the samples that failed.
        residuals: their relative residuals (not finite where f was not).
    """

    def __init__(
        self, message: str, samples: Sequence[int], residuals: Sequence[float]
    ):
        super().__init__(message)
        self.samples = tuple(samples)
        self.residuals = tuple(residuals)


@dataclass(frozen=True)
class Solution:
    """How the solve of ``z = f(z)`` ended, for each of B samples.

    Attributes:
        value: (B, ...) the fixed point.
        converged: (B,) bool.
        steps: (B,) evaluations of f that the sample took.
        residual: (B,) ``|f(z) - z| / (|f(z)| + atol / rtol)`` at ``value``; converged: <= rtol.
        history: (steps, B) the residual at each evaluation, or None where it was not asked for.
    """

    value: Tensor
    converged: Tensor
    steps: Tensor
    residual: Tensor
    history: Tensor | None = None


class Step(Protocol):
    """Goes from one iterate to the next."""

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor) -> Tensor:
        """The next iterate, from ``z``, ``image = f(z)``, ``gap = image - z``, all (B, ...)."""

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
class _Settings:
    rtol: float = 1e-8
    atol: float = 1e-12
    max_steps: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.rtol < 1:
            raise ValueError(f"rtol must lie in (0, 1), got {self.rtol}")
        if self.atol < 0:
            raise ValueError(f"atol must not be negative, got {self.atol}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True)
class Picard(_Settings):
    """The plain iteration ``z <- damping * z + (1 - damping) * f(z)``.

    Converges where f is a contraction, at its rate; nothing else is as cheap a step.

    Args:
        rtol, atol: a sample has converged at ``|f(z) - z| <= rtol * |f(z)| + atol`` (2-norms).
        max_steps: evaluations of f, at most.
        damping: share of the old iterate in the next, in [0, 1).
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

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor) -> Tensor:
        return image - self.damping * gap if self.damping else image

    def keep(self, rows: Tensor) -> None:
        pass


@dataclass(frozen=True)
class Anderson(_Settings):
    """Anderson mixing, safeguarded (Walker & Ni 2011, SIAM J. Numer. Anal. 49(4), problem AA).

    The next iterate is ``sum_i a_i f(z_i)`` over the last ``memory`` iterates, with the weights
    (of sum one) that make ``sum_i a_i (f(z_i) - z_i)`` smallest. Where a mixed iterate does not
    reduce the residual, the plain step from the one before it is taken instead, so a contraction
    converges whatever the mixing does.

    Args:
        rtol, atol, max_steps: as in `Picard`.
        memory: how many iterates are mixed.
        ridge: regularisation relative to each iterate's own squared residual, hence free of scale.
    """

    memory: int = 4
    ridge: float = 1e-12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 2:
            raise ValueError(f"memory must be at least 2, got {self.memory}")

    def start(self, z: Tensor) -> Step:
        return _AndersonStep(z, self.memory, self.ridge)


class _AndersonStep:
    def __init__(self, z: Tensor, memory: int, ridge: float):
        B, D = z.shape[0], z[0].numel()
        self.memory, self.ridge = memory, max(ridge, torch.finfo(z.dtype).eps)
        self.images = z.new_zeros(B, memory, D)
        self.gaps = z.new_zeros(B, memory, D)
        self.gram = z.new_zeros(B, memory, memory)
        self.filled = z.new_zeros(memory)
        self.steps = 0
        self.plain = z.new_ones(
            B, dtype=torch.bool
        )  # the first iterate has nothing to beat

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor) -> Tensor:
        slot, before = self.steps % self.memory, (self.steps - 1) % self.memory
        self.steps += 1
        self.images[:, slot] = image.flatten(1)
        self.gaps[:, slot] = gap.flatten(1)
        self.filled[slot] = 1
        products = torch.bmm(self.gaps, gap.flatten(1).unsqueeze(2)).squeeze(
            2
        )  # (B, memory)
        self.gram[:, slot] = products
        self.gram[:, :, slot] = products

        squared = self.gram.diagonal(dim1=1, dim2=2)
        scale = squared.clamp_min(torch.finfo(z.dtype).tiny).rsqrt() * self.filled
        correlation = self.gram * scale.unsqueeze(1) * scale.unsqueeze(2)
        correlation.diagonal(dim1=1, dim2=2).add_(1 - self.filled + self.ridge)
        factor = torch.linalg.cholesky_ex(correlation).L
        weights = scale * torch.cholesky_solve(scale.unsqueeze(2), factor).squeeze(2)
        weights = weights / weights.sum(1, keepdim=True)
        mixed = torch.bmm(weights.unsqueeze(1), self.images).view_as(z)

        worse = (squared[:, slot] >= squared[:, before]) & ~self.plain
        self.plain = worse
        if worse.any():
            mixed[worse] = self.images[worse, before].view_as(mixed[worse])
        return mixed

    def keep(self, rows: Tensor) -> None:
        self.images, self.gaps = self.images[rows], self.gaps[rows]
        self.gram, self.plain = self.gram[rows], self.plain[rows]


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

    A sample that is done changes no more. Given ``inputs``, it leaves the batch as well.

    Args:
        f: maps (B, ...) to the same shape, sample by sample.
        z0: (B, ...) the first iterate.
        kind: what is solved, for the record and the error.
        inputs: tensors (B, ...) that f takes after z.

    Raises:
        ConvergenceError: where ``on_failure`` is "raise" and a sample did not converge.
    """
    check_tolerance(solver, z0.dtype)
    B, floor = z0.shape[0], solver.atol / solver.rtol
    value = z0.clone()
    residual = z0.new_zeros(B)
    first = residual
    steps = torch.zeros(B, dtype=torch.long, device=z0.device)
    rows = torch.arange(B, device=z0.device)  # the samples that are still evaluated
    done = torch.zeros(B, dtype=torch.bool, device=z0.device)
    traced: list[Tensor] = []
    step = solver.start(z0)
    z = z0
    for count in range(1, solver.max_steps + 1) if B else ():
        image = f(z, *inputs)
        if count == 1:
            _check_image(image, z)
        gap = image - z
        size = _norm(image)
        relative = _norm(gap) / (size + floor)
        relative[size + floor == 0] = 0.0  # f(0) = 0 exactly, where only rtol counts
        steps[rows] += ~done
        residual[rows] = relative
        if count == 1:
            first = residual.clone()
        if history:
            traced.append(residual.clone())
        done |= (relative <= solver.rtol) | ~relative.isfinite()
        if done.all():
            break
        if count == solver.max_steps:
            break
        following = step(z, image, gap)
        if not done.any():
            z = following
            continue
        z = torch.where(done.view(-1, *[1] * (z.ndim - 1)), z, following)
        if inputs and (~done).sum() <= _COMPACT * len(rows):
            value[rows] = z
            open_rows = (~done).nonzero().squeeze(1)
            rows, z, done = rows[open_rows], z[open_rows], done[open_rows]
            inputs = tuple(x[open_rows] for x in inputs)
            step.keep(open_rows)
    if B:
        value[rows] = z
    converged = residual <= solver.rtol
    if record is not None:
        record.add(kind, steps, residual, converged)
    if on_failure == "raise" and not converged.all():
        raise _failure(kind, solver, converged, residual, first, steps)
    return Solution(
        value, converged, steps, residual, torch.stack(traced) if traced else None
    )


def check_tolerance(solver: Solver, dtype: torch.dtype) -> None:
    """Refuse a tolerance that rounding keeps out of reach.

    Raises:
        TypeError: where the dtype is not real floating point.
        ValueError: where it is, and ``rtol`` lies below what it can reach.
    """
    if not dtype.is_floating_point:
        raise TypeError(f"the state must be real floating point, got {dtype}")
    reachable = _REACHABLE * torch.finfo(dtype).eps
    if solver.rtol < reachable:
        raise ValueError(
            f"rtol={solver.rtol:g} lies below the precision of {dtype}: about {reachable:.0e} is "
            f"reachable. Pass a solver (and an adjoint's solver) with a larger rtol, or float64."
        )


def _norm(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values.flatten(1), dim=1)


def _check_image(image: Tensor, z: Tensor) -> None:
    if image.shape != z.shape:
        raise ValueError(
            f"f must keep the shape {tuple(z.shape)}, got {tuple(image.shape)}"
        )
    if image.dtype != z.dtype:
        raise TypeError(
            f"f must keep the dtype {z.dtype}, got {image.dtype}: cast the parameters and inputs "
            f"of f, or the first iterate"
        )


def _failure(
    kind: str,
    solver: Solver,
    converged: Tensor,
    residual: Tensor,
    first: Tensor,
    steps: Tensor,
) -> ConvergenceError:
    """The error that names the samples, their residuals, and what to do about it."""
    samples = (~converged).nonzero().squeeze(1)
    failed = residual[samples].tolist()
    shown = ", ".join(
        f"{s} ({r:.1e})" for s, r in zip(samples.tolist()[:8], failed, strict=False)
    )
    more = ", ..." if len(failed) > 8 else ""
    message = (
        f"{kind}: {len(failed)} of {len(residual)} samples did not reach "
        f"rtol={solver.rtol:g}: sample (residual) {shown}{more}. "
    )
    broken = ~residual.isfinite()
    if bool((broken & (steps == 1)).any()):
        mend = "f is not finite at the first iterate: look for NaN or infinity in its inputs."
    elif bool(broken.any()):
        mend = "The iterates diverge: f is no contraction here; bound its weights or damp it."
    else:
        worst = int(samples[residual[samples].argmax()])
        start, end, taken = (
            float(first[worst]),
            float(residual[worst]),
            int(steps[worst]),
        )
        rate = (end / start) ** (1 / (taken - 1)) if taken > 1 and start > 0 else 1.0
        if rate < 0.999:
            needed = taken + math.ceil(math.log(solver.rtol / end) / math.log(rate))
            mend = (
                f"At the rate so far ({rate:.3f} a step) max_steps={needed} would do."
            )
        elif taken == 1:
            mend = "One step tells nothing: raise max_steps."
        else:
            mend = (
                f"The residual does not fall in {taken} steps: f is no contraction here, or rtol "
                f"is beyond its rounding; bound its weights, damp it, or loosen rtol."
            )
    return ConvergenceError(message + mend, samples.tolist(), failed)
