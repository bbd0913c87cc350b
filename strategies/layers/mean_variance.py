"""The differentiable mean-variance layer: expected returns and risk in, weights out.

``problem.py`` states the problem and what is checked about it; a solver (``qpth_solver.py``,
``active_set.py``) finds the weights and their gradient. The layer brings the two together, reports
how each solve ended, and refuses results that missed the solver's tolerance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strategies.layers.active_set import ActiveSet
from strategies.layers.problem import (
    FactorRisk,
    InfeasibleError,
    Problem,
    Solution,
    SolveError,
    Solver,
    build_problem,
    check_problem,
)
from strategies.layers.qpth_solver import Qpth
from strategies.layers.record import open_record

__all__ = [
    "ActiveSet",
    "FactorRisk",
    "InfeasibleError",
    "MeanVarianceLayer",
    "Qpth",
    "Solution",
    "SolveError",
]


class MeanVarianceLayer(nn.Module):
    """Weights that solve the mean-variance problem, with exact gradients.

    Gradients flow to every tensor argument. At a weakly active constraint (at its limit with a
    multiplier of zero) the weights have a kink; the gradient is then that of one side.

        layer = MeanVarianceLayer(Qpth())
        weights = layer(risk, expected_return, upper=0.2)

    Args:
        solver: how the problem is solved; ``ActiveSet()`` if not given.
    """

    def __init__(self, solver: Solver | None = None) -> None:
        super().__init__()
        self.solver = ActiveSet() if solver is None else solver

    def forward(self, risk: Tensor | FactorRisk, expected_return: Tensor, **constraints) -> Tensor:
        """The weights, (B, N) float64; arguments and errors as in ``solve``.

        Raises:
            SolveError: the solver missed its tolerance on some samples.
        """
        problem = build_problem(risk, expected_return, **constraints)
        solution = self._solve(problem)
        missed = (~solution.converged).nonzero().flatten().tolist()
        if missed:
            worst = float(solution.residual.nan_to_num(torch.inf).max())
            raise SolveError(
                f"{self.solver} left a relative KKT residual of {worst:.1e}, its tolerance is "
                f"{self.solver.tolerance:.0e}; {problem.name(missed)}",
                missed,
            )
        return solution.weights

    def solve(self, risk: Tensor | FactorRisk, expected_return: Tensor, **constraints) -> Solution:
        """The weights and how the solve ended, sample by sample.

        Args:
            risk, expected_return, constraints: as in ``build_problem``.

        Raises:
            InfeasibleError: no weights satisfy the constraints of some samples.
            ValueError: shapes that do not fit, NaN or infinity, or a P that is not symmetric
                positive definite; the message names the samples.
        """
        return self._solve(build_problem(risk, expected_return, **constraints))

    def _solve(self, problem: Problem) -> Solution:
        check_problem(problem)
        solution = self.solver.solve(problem)
        record = open_record()
        if record is not None:
            record.add("mean-variance", solution.rounds, solution.residual, solution.converged)
        return solution
