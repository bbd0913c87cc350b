"""The differentiable mean-variance layer: expected returns and risk in, weights out.

``problem.py`` states the problem and what is checked about it; a solver (``qpth_solver.py``,
``active_set.py``) finds the weights and their gradient. The layer brings the two together, reports
how each solve ended, and refuses results that missed the solver's tolerance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.cross_check import open_cross_check
from strategies.layers.optimisation.explanation import MEAN_VARIANCE, Solved
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
from strategies.layers.optimisation.warm_starts import WarmStarts
from strategies.layers.solve_record import open_record

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

    With ``keys`` the layer remembers what pinned each weight of a sample, one int8 each, and starts
    the next solve of the same key from there: faster, with the same weights to 1e-12.

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
        self.warm_starts = WarmStarts(-1, torch.int8)

    def forward(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        *,
        keys: Sequence[Hashable] | None = None,
        start: Tensor | None = None,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64; arguments and errors as in ``solve``.

        Raises:
            SolveError: the solver missed its tolerance on some samples.
        """
        problem = build_problem(risk, expected_return, **constraints)
        return self._checked(problem, self._solve(problem, keys, start))

    def solve(
        self,
        risk: Tensor | FactorRisk,
        expected_return: Tensor,
        *,
        keys: Sequence[Hashable] | None = None,
        start: Tensor | None = None,
        **constraints: Any,
    ) -> Solution:
        """The weights and how the solve ended, sample by sample.

        Args:
            risk, expected_return, constraints: as in ``build_problem``.
            keys: what each sample is known by from one call to the next, such as its date.
            start: ``states`` of an earlier solution of similar problems, instead of keys; a row
                that begins with -1 starts cold.

        Raises:
            InfeasibleError: no weights satisfy the constraints of some samples.
            ValueError: shapes that do not fit, NaN or infinity, or a P that is not symmetric
                positive definite; the message names the samples.
        """
        return self._solve(build_problem(risk, expected_return, **constraints), keys, start)

    def forget(self) -> None:
        """Forget all keys: the next solves start cold."""
        self.warm_starts.forget()

    def _solve(
        self, problem: Problem, keys: Sequence[Hashable] | None, start: Tensor | None
    ) -> Solution:
        if keys is None:
            return self._solve_from(problem, start)
        if start is not None:
            raise ValueError("give keys or a start, not both")
        if len(keys) != (batch := len(problem.expected_return)):
            raise ValueError(f"expected {batch} keys, one a sample, got {len(keys)}")
        width = problem.expected_return.shape[1] + problem.rows.shape[1] + 2
        start = self.warm_starts.recall(keys, width)
        solution = self._solve_from(problem, start)
        if solution.states is not None:
            self.warm_starts.keep(keys, solution.states)
        return solution

    def _solve_from(self, problem: Problem, start: Tensor | None) -> Solution:
        check = open_cross_check()
        if check is not None:
            check.compare(problem, self.solver)
        solution = self.solver.solve(problem, start)
        _record(problem, solution)
        return solution

    def reported(self, problem: Problem, solution: Solution) -> Tensor:
        """The weights of a solution that this layer's solver found in parts, treated as the
        layer's own: cross-checked, recorded, refused where it missed the tolerance."""
        check = open_cross_check()
        if check is not None:
            check.compare(problem, self.solver)
        _record(problem, solution)
        return self._checked(problem, solution)

    def _checked(self, problem: Problem, solution: Solution) -> Tensor:
        """The weights, unless some missed the tolerance."""
        if solution.status.any():
            missed = solution.status.nonzero().flatten().tolist()
            worst = float(solution.residual.nan_to_num(torch.inf).max())
            raise SolveError(
                f"{self.solver} left a relative KKT residual of {worst:.1e}, its tolerance is "
                f"{self.solver.tolerance:.0e}; {problem.name(missed)}",
                missed,
            )
        return solution.weights


def _record(problem: Problem, solution: Solution) -> None:
    record = open_record()
    if record is not None:
        record.add(MEAN_VARIANCE, solution.rounds, solution.residual, solution.converged)
        if record.details is not None:
            record.details.append((MEAN_VARIANCE, Solved(problem, solution)))
