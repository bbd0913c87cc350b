"""Why a portfolio is what it is: q, P, the equilibrium, and what each weight pays for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from strategies.layers.optimisation.activity import terms_of
from strategies.layers.optimisation.problem import FactorRisk, Problem, Solution
from strategies.layers.solve_record import FIXED_POINT

MEAN_VARIANCE = "mean-variance"


class Solved(NamedTuple):
    """A batch of mean-variance problems and their solution, as ``SolveRecord.details`` keeps it."""

    problem: Problem
    solution: Solution
    cost: Tensor | None = None  # (B, 1) c of 1/2 c |z - h|^2, which q and P contain
    holdings: Tensor | None = None  # (B, N) h


@dataclass(frozen=True)
class Explanation:
    """One portfolio of N assets, and what it follows from.

    Attributes:
        by_asset: (N, 8) weight z, expected_return q, and what q pays for, in its unit: risk (P z),
            trading (the quadratic cost, the turnover cost and limit), gross, rows (budget, groups,
            exposures), cap and floor. In each row
            ``expected_return = risk + trading + gross + rows + cap - floor``. With a tracking term,
            q is that of the equivalent problem without one.
        risk: (N, N) P, of which only the ratio to q matters.
        multipliers: (R + 2,) of the budget, of further rows, of the turnover and the gross limit;
            positive at an upper limit, negative at a lower one. What one more unit is worth.
        equilibrium: (N, H) the state of each asset z* = f(z*); None of a network without one.
        solves: one row a kind of solve: steps, residual (relative), converged.
    """

    by_asset: pd.DataFrame
    risk: pd.DataFrame
    multipliers: pd.Series
    equilibrium: pd.DataFrame | None
    solves: pd.DataFrame


def explanations(details: Sequence[tuple[str, Any]], assets: Sequence[str]) -> list[Explanation]:
    """One for each portfolio in the details of a record, in order: all samples of a solve, then
    those of the next."""
    found: list[Explanation] = []
    fixed_point = None
    for kind, kept in details:
        if kind == FIXED_POINT:
            fixed_point = kept
        elif kind == MEAN_VARIANCE:
            batch = range(len(kept.solution.weights))
            found += [_of_sample(kept, fixed_point, b, assets) for b in batch]
            fixed_point = None
    return found


def _of_sample(solved: Solved, fixed_point: Any, b: int, assets: Sequence[str]) -> Explanation:
    problem, solution = solved.problem, solved.solution
    one = problem.of_samples(solution.rounds.new_tensor([b]))
    own = Solution(*(each[b : b + 1] for each in list(vars(solution).values())[:5]))
    terms = {name: each[0] for name, each in terms_of(one, own).items()}
    q, z, risk = (_array(each)[0] for each in (one.expected_return, own.weights, _dense(one)))
    trading = terms["turnover"]
    if solved.cost is not None and solved.holdings is not None:
        cost, held = float(solved.cost[b]), _array(solved.holdings)[b]
        q, risk = q - cost * held, risk - cost * np.eye(len(q))
        terms["risk"] = terms["risk"] - cost * z
        trading = trading + cost * (z - held)
    table = {"weight": z, "expected_return": q, "risk": terms["risk"], "trading": trading}
    table |= {name: terms[name] for name in ("gross", "rows", "cap", "floor")}
    count = problem.rows.shape[1]
    names = [*map(problem.row_name, range(count)), "turnover", "gross"]
    solves: list[tuple[str, Any, Tensor]] = [(MEAN_VARIANCE, solution, solution.rounds)]
    equilibrium = None
    if fixed_point is not None:
        solves.insert(0, (FIXED_POINT, fixed_point, fixed_point.steps))
        equilibrium = pd.DataFrame(_array(fixed_point.value)[b], index=assets)
    return Explanation(
        pd.DataFrame(table, index=assets),
        pd.DataFrame(risk, index=assets, columns=assets),
        pd.Series(_array(own.duals)[0], index=names),
        equilibrium,
        pd.DataFrame(
            {
                "steps": [int(steps[b]) for _, _, steps in solves],
                "residual": [float(each.residual[b]) for _, each, _ in solves],
                "converged": [bool(each.converged[b]) for _, each, _ in solves],
            },
            index=[kind for kind, _, _ in solves],
        ),
    )


def _dense(problem: Problem) -> Tensor:
    risk = problem.risk
    return risk.dense() if isinstance(risk, FactorRisk) else risk


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
