"""How the solve of a fixed point ended for each sample, and the error where it failed.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance; ``residual`` is the
one measured at ``value`` itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point_solvers import Solver
from strategies.layers.solve_record import FIXED_POINT, SolveRecord

OnFailure = Literal["raise", "flag"]

# Rounding alone leaves a relative residual of a few units in the last place.
_REACHABLE, _COMFORTABLE = 10.0, 100.0
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


class Tolerance(NamedTuple):
    """When a solve ends, in numbers; see ``Picard``."""

    rtol: float
    atol: float
    max_steps: int

    @property
    def marks(self) -> tuple[int, int]:
        """After how many steps the residual is kept for the message of a failure."""
        return self.max_steps // 4, self.max_steps // 2


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
