"""Solvers for ``z = f(z)`` on a batch: what each does between two evaluations of f.

A solver is a frozen dataclass of settings. Its ``start`` makes a *step*, an object that turns one
evaluation of f into the next iterate; fixed_point_loop.py drives it until its ``Tolerance``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Rounding alone leaves a relative residual of a few units in the last place.
_REACHABLE, _COMFORTABLE = 10.0, 100.0


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
    def rtol(self) -> float | None: ...
    @property
    def atol(self) -> float: ...
    @property
    def max_steps(self) -> int: ...

    def start(self, z: Tensor) -> Step: ...


@dataclass(frozen=True)
class _Tolerances:
    """What all solvers share.

    Args:
        rtol, atol: a sample has converged at ``|f(z) - z| <= rtol * |f(z)| + atol``; see
            ``Solution.residual``. An rtol of None is 1e-9, or 100 rounding units of the state's
            dtype where that is more: 1.2e-5 in float32.
        max_steps: evaluations of f, at most.
    """

    rtol: float | None = None
    atol: float = 1e-13
    max_steps: int = 500

    def __post_init__(self) -> None:
        if self.rtol is not None and not 0 < self.rtol < 1:
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
        onset: a sample is mixed once a step has left more than this share of its residual, and
            goes in plain steps until then, which are as good where f contracts fast; 0 mixes from
            the first step on.
    """

    memory: int = 4
    ridge: float = 1e-12
    onset: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 2:
            raise ValueError(f"memory must be at least 2, got {self.memory}")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge must be finite and not negative, got {self.ridge}")
        if not 0 <= self.onset < 1:
            raise ValueError(f"onset must lie in [0, 1), got {self.onset}")

    def least_ridge(self, dtype: torch.dtype) -> float:
        """The ridge, or the least one that rounding allows."""
        return max(self.ridge, 10 * torch.finfo(dtype).eps)

    def start(self, z: Tensor) -> Step:
        return _AndersonStep(z, self.memory, self.least_ridge(z.dtype), self.onset)


class _AndersonStep:
    """Mixes, and takes a mixed iterate back where it did not reduce the residual.

    The plain step from the iterate before is taken instead, and then stands whatever it brings.
    So of two evaluations at least one is worth a plain step, and a contraction converges.
    """

    def __init__(self, z: Tensor, memory: int, ridge: float, onset: float):
        B, D = z.shape[0], z[0].numel()
        self.ridge, self.onset = ridge, onset
        self.images = z.new_zeros(B, memory, D)
        self.gaps = z.new_zeros(B, memory, D)
        self.gram = z.new_zeros(B, memory, memory)  # inner products of the gaps
        self.empty = z.new_ones(B, memory)
        self.count = 0
        self.begun = z.new_full((B,), onset == 0, dtype=torch.bool)
        self.size = z.new_full((B,), math.inf)
        self.plain = torch.ones_like(self.begun)
        self.image = z

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        begun, slow = self.begun, size > self.onset * self.size
        if self.onset:
            self.begun = begun | slow
            if begun.device.type == "cpu" and not begun.any():
                return self._guarded(image, image, size, begun)
        slot = self.count % self.empty.shape[1]
        self.count += 1
        self.empty[:, slot] = (~begun).to(z.dtype)
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
        factor, broken = torch.linalg.cholesky_ex(correlations)
        weights = scale * torch.cholesky_solve(scale.unsqueeze(2), factor).squeeze(2)
        weights /= weights.sum(1, keepdim=True)
        plainly = ~begun | (broken > 0)  # or gaps parallel to the last digit: the plain step
        if plainly.device.type != "cpu" or plainly.any():
            own = (torch.arange(weights.shape[1], device=z.device) == slot).to(weights.dtype)
            weights = torch.where(plainly.unsqueeze(1), own, weights)
        mixed = torch.bmm(weights.unsqueeze(1), self.images).view_as(image)
        return self._guarded(mixed, image, size, begun)

    def _guarded(self, proposal: Tensor, image: Tensor, size: Tensor, mixed: Tensor) -> Tensor:
        """The proposal, or the plain step; ``mixed`` (B,): where the proposal is no plain step."""
        worse = (size >= self.size) & ~self.plain
        if worse.device.type != "cpu" or worse.any():  # elsewhere the question costs more
            proposal = torch.where(worse.view(-1, *[1] * (image.ndim - 1)), self.image, proposal)
        self.size, self.image, self.plain = size, image, worse | ~mixed
        return proposal

    def keep(self, rows: Tensor) -> None:
        self.images, self.gaps = self.images[rows], self.gaps[rows]
        self.gram, self.empty, self.begun = self.gram[rows], self.empty[rows], self.begun[rows]
        self.size, self.plain, self.image = self.size[rows], self.plain[rows], self.image[rows]


@dataclass(frozen=True)
class Broyden(_Tolerances):
    """Broyden's good method on ``f(z) - z = 0``.

    Builds the inverse Jacobian from secants, as minus the identity plus one rank a step
    (Broyden, Math. Comp. 19, 1965, method 1), and restarts it when ``memory`` is full. Finds
    fixed points of maps that are no contractions as well; of a linear map of D dimensions in at
    most 2 D + 1 evaluations (Gay, SIAM J. Numer. Anal. 16, 1979), if memory is as large as that.

    On the way there the residual may rise; to hold it back, as `Anderson` does, costs more steps
    than it saves.

    Args:
        memory: how many ranks are kept.
    """

    memory: int = 20

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

    def __call__(self, z: Tensor, image: Tensor, gap: Tensor, size: Tensor) -> Tensor:
        point, error = z.flatten(1), gap.flatten(1).clone()
        if self.last is not None:
            self._learn(point - self.last[0], error - self.last[1])
        self.last = point, error
        u, v = self.u[:, : self.count], self.v[:, : self.count]
        following = image.flatten(1) - _combine(_inner(error, v), u)  # z - H gap
        return following.view_as(image)

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


def _inner(x: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of x (B, D) with vectors (B, k, D) -> (B, k)."""
    return torch.bmm(x.unsqueeze(1), vectors.mT).squeeze(1)


def _combine(weights: Tensor, vectors: Tensor) -> Tensor:
    """Sums of vectors (B, k, D) with weights (B, k) -> (B, D)."""
    return torch.bmm(weights.unsqueeze(1), vectors).squeeze(1)


class Tolerance(NamedTuple):
    """When a solve ends, in numbers; see ``Picard``."""

    rtol: float
    atol: float
    max_steps: int

    @property
    def marks(self) -> tuple[int, int]:
        """After how many steps the residual is kept for the message of a failure."""
        return self.max_steps // 4, self.max_steps // 2


def tolerance_of(solver: Solver, dtype: torch.dtype) -> Tolerance:
    """The tolerance of a solver on states of a dtype.

    Raises:
        TypeError: where the dtype is not real floating point, or the solver is none.
        ValueError: where ``rtol`` lies below what rounding leaves within reach.
    """
    if isinstance(solver, type) or not hasattr(solver, "start"):
        raise TypeError(f"solver must be Picard(), Anderson() or Broyden(), got {solver!r}")
    if not dtype.is_floating_point:
        raise TypeError(f"the state must be real floating point, got {dtype}")
    eps = torch.finfo(dtype).eps
    rtol = max(1e-9, _COMFORTABLE * eps) if solver.rtol is None else solver.rtol
    reachable = _REACHABLE * eps
    if rtol < reachable:
        raise ValueError(
            f"rtol={rtol:g} lies below the precision of {dtype}, which reaches about "
            f"{reachable:.0e}: loosen rtol in the solver and in the adjoint's, or use float64"
        )
    return Tolerance(rtol, solver.atol, solver.max_steps)
