"""The differentiable mean-variance layer: expected returns and risk in, weights out.

``problem.py`` states the problem and what is checked about it; a solver (``qpth_solver.py``,
``active_set/``) finds the weights and their gradient. The layer brings the two together, reports
how each solve ended, and refuses results that missed the solver's tolerance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.cross_check import open_cross_check
from strategies.layers.optimisation.explanation import Solved
from strategies.layers.optimisation.problem import (
    FactorRisk,
    InfeasibleError,
    Problem,
    Solution,
    SolveError,
    Solver,
    Status,
    build_problem,
)
from strategies.layers.optimisation.qpth_solver import Qpth
from strategies.layers.solve_record import MEAN_VARIANCE, open_record

__all__ = [
    "ActiveSet",
    "FactorRisk",
    "InfeasibleError",
    "MeanVarianceLayer",
    "Qpth",
    "Solution",
    "SolveError",
    "Status",
]


class MeanVarianceLayer(nn.Module):
    """Weights that solve the mean-variance problem, with exact gradients.

    Gradients flow to every tensor argument. At a weakly active limit (reached, with a multiplier of
    zero, to 1e-12) the weights have a kink. The gradient is then that of the side on which the
    limit is not in the way, as though it was not there; with ``Qpth`` a mixture of both sides.
    Second derivatives are refused in words; ``Reference`` of ``reference.py`` has them.

        layer = MeanVarianceLayer()
        weights = layer(risk, expected_return, upper=0.2)

    Args:
        solver: how the problem is solved; ``ActiveSet()`` if not given.
    """

    def __init__(self, solver: Solver | None = None) -> None:
        super().__init__()
        if solver is not None and (isinstance(solver, type) or not hasattr(solver, "solve")):
            raise TypeError(
                f"solver must be ActiveSet(), Qpth() or another Solver, got {solver!r}: leave it "
                "out for the default"
            )
        self.solver = ActiveSet() if solver is None else solver

    def forward(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        *,
        start: Tensor | None = None,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64; arguments and errors as in ``solve``.

        Raises:
            SolveError: the solver missed its tolerance on some samples.
        """
        problem = build_problem(risk, expected_return, **constraints)
        return self.reported(problem, self.solver.solve(problem, start))

    def solve(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        *,
        start: Tensor | None = None,
        **constraints: Any,
    ) -> Solution:
        """The weights and how the solve ended, sample by sample.

        Args:
            risk, expected_return, constraints: as in ``build_problem``.
            start: ``states`` of an earlier solution of similar problems; a row that begins with -1
                starts cold.

        Raises:
            InfeasibleError: no weights satisfy the constraints of some samples.
            ValueError: shapes that do not fit, NaN or infinity, or a P that is not symmetric
                positive definite; the message names the samples.
        """
        problem = build_problem(risk, expected_return, **constraints)
        solution = self.solver.solve(problem, start)
        self._report(problem, solution)
        return solution

    def reported(self, problem: Problem, solution: Solution) -> Tensor:
        """The weights of what this layer's solver found: cross-checked, recorded, and refused where
        some missed the tolerance."""
        self._report(problem, solution)
        if solution.status.any():
            missed = solution.status.nonzero().flatten().tolist()
            worst = float(solution.residual.nan_to_num(torch.inf).max())
            raise SolveError(
                f"{self.solver} left a relative KKT residual of {worst:.1e}, its tolerance is "
                f"{self.solver.tolerance:.0e}; {problem.name(missed)}",
                missed,
            )
        return solution.weights

    def _report(self, problem: Problem, solution: Solution) -> None:
        if (check := open_cross_check()) is not None:
            check.compare(problem, self.solver)
        if (record := open_record()) is not None:
            record.add(MEAN_VARIANCE, solution.rounds, solution.residual, solution.converged)
            if record.details is not None:
                record.details.append((MEAN_VARIANCE, Solved(problem, solution)))
