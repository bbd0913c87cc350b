"""How the solve of a fixed point ended for each sample, and the error where it failed.

Invariant: where ``converged`` is set, ``f(value) == value`` to the tolerance; ``residual`` is the
one measured at ``value`` itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point_solvers import Solver
from strategies.layers.solve_record import SolveRecord

OnFailure = Literal["raise", "flag"]

# Rounding alone leaves a relative residual of a few units in the last place.
_REACHABLE = 10.0


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
        solver: Solver,
        value: Tensor,
        residual: Tensor,
        midway: Tensor,
        steps: Tensor,
        history: Tensor | None = None,
    ) -> Solution:
        """The solution, recorded; arguments as its attributes.

        Args:
            midway: (B,) the residuals after half of the steps allowed.

        Raises:
            ConvergenceError: where a sample did not converge and ``on_failure`` is "raise".
        """
        solution = Solution(value, residual <= solver.rtol, steps, residual, history)
        if self.record is not None:
            self.record.add(self.kind, steps, residual, solution.converged)
        if self.on_failure == "flag" or bool(solution.converged.all()):
            return solution
        samples = (~solution.converged).nonzero().squeeze(1).tolist()
        failed = residual[samples].tolist()
        shown = ", ".join(f"{s} ({r:.1e})" for s, r in zip(samples[:8], failed, strict=False))
        raise ConvergenceError(
            f"{self.kind}: {len(failed)} of {len(residual)} samples did not reach "
            f"rtol={solver.rtol:g}: sample (residual) {shown}{', ...' if len(failed) > 8 else ''}. "
            f"{_remedy(solution, solver, midway)}",
            samples,
            failed,
        )


def _remedy(solution: Solution, solver: Solver, midway: Tensor) -> str:
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
