"""Why a portfolio is what it is: q, P, the equilibrium, what binds, and what each weight pays for.

A shadow price is the gain of the objective, ``q'z - 1/2 z'Pz`` less what turnover costs, for one
more unit of the limit. What the expected return of each weight pays for is the stationarity of the
Lagrangian (Boyd and Vandenberghe 2004, section 5.5.3):

    q  =  P z + rows'y + c s + price of the cap - price of the floor

with y the multipliers of the rows, c those of turnover and gross exposure and s their signs. Where
a weight stands exactly at its holding or at zero the sign may lie anywhere from -1 to 1, and the
smallest price is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from strategies.layers.optimisation.problem import Problem, Solution
from strategies.layers.solve_record import FIXED_POINT, MEAN_VARIANCE

AT_LIMIT = 1e-6  # fractions of the portfolio: so near, a weight is at its limit


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
    q, z, risk = (_array(each)[0] for each in (one.expected_return, own.weights, one.dense_risk()))
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


def terms_of(problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
    """What the expected return of each weight pays for, (B, N) each; their sum is q.

    ``risk`` is P z, ``rows`` the rows at their multipliers, ``turnover`` and ``gross`` those costs
    and limits, ``cap`` and ``floor`` the prices of the bounds (zero or more; the floor is taken
    off). In the unit of q.
    """
    weights = solution.weights.detach()
    z, duals, q = map(_array, (weights, solution.duals, problem.expected_return))
    rows = np.broadcast_to(_array(problem.rows), (len(z), *problem.rows.shape[1:]))
    count = rows.shape[1]
    found = {
        "risk": _array(problem.risk_times(weights)),
        "rows": np.einsum("brn,br->bn", rows, duals[:, :count]),
    }
    kinks = {"turnover": (np.zeros_like(z), z), "gross": (np.abs(duals[:, -1:]) + 0 * z, z)}
    if problem.holdings is not None and problem.cost is not None:
        price = _array(problem.cost) + duals[:, count : count + 1]
        kinks["turnover"] = price, z - _array(problem.holdings)
    loose = {}  # by how much the signs may move it
    for name, (price, distance) in kinks.items():
        clear = np.abs(distance) > AT_LIMIT
        found[name] = np.where(clear, price * np.sign(distance), 0.0)
        loose[name] = np.where(clear, 0.0, price)
    rest = q - sum(found.values())
    room = loose["turnover"] + loose["gross"]
    taken = np.clip(rest, -room, room)
    for name, width in loose.items():
        found[name] += taken * np.divide(width, room, out=np.zeros_like(z), where=room > 0)
    rest -= taken
    return found | {"cap": np.maximum(rest, 0.0), "floor": np.maximum(-rest, 0.0)}


def limits_of(problem: Problem, solution: Solution) -> list[list[dict[str, object]]]:
    """What binds in each sample: one list a sample, one entry a constraint that may bind.

    An entry says limit (its name), held and of (how many weights stand at it, out of how many; 1 or
    0 out of 1 for a limit of a sum), price (the shadow price; the largest of those weights;
    signed for sums: positive at the upper limit) and variance (z'Pz, the same for all entries).
    """
    weights = solution.weights.detach()
    terms = terms_of(problem, solution)
    z, duals = _array(weights), _array(solution.duals)
    lower, upper = _array(problem.lower), _array(problem.upper)
    rows, row_lower, row_upper = map(_array, (problem.rows, problem.row_lower, problem.row_upper))
    holdings = None if problem.holdings is None else _array(problem.holdings)
    turnover = None if problem.turnover_limit is None else _array(problem.turnover_limit)
    gross = None if problem.gross_limit is None else _array(problem.gross_limit)
    count = rows.shape[1]
    rows = np.broadcast_to(rows, (len(z), *rows.shape[1:]))
    free = upper - lower > AT_LIMIT  # else the asset does not trade
    variance = (z * terms["risk"]).sum(axis=1)
    sums = np.einsum("brn,bn->br", rows, z)

    found = []
    for b in range(len(z)):
        own: list[tuple[str, int, int, float]] = []  # limit, held, of, price
        for name, bound in (("floor", lower), ("cap", upper)):
            limited = free[b] & np.isfinite(bound[b])
            at = limited & (np.abs(z[b] - bound[b]) <= AT_LIMIT)
            if limited.any():
                price = terms[name][b][at].max(initial=0.0)
                own.append((name, int(at.sum()), int(limited.sum()), price))
        for r in range(count):
            gap = np.minimum(sums[b, r] - row_lower[b, r], row_upper[b, r] - sums[b, r])
            own.append((problem.row_name(r), int(gap <= AT_LIMIT), 1, duals[b, r]))
        if turnover is not None and holdings is not None:
            gap = turnover[b] - np.abs(z[b] - holdings[b]).sum()
            own.append(("turnover", int(gap <= AT_LIMIT), 1, duals[b, count]))
        if gross is not None:
            gap = gross[b] - np.abs(z[b]).sum()
            own.append(("gross", int(gap <= AT_LIMIT), 1, duals[b, count + 1]))
        found.append(
            [
                {
                    "limit": limit,
                    "held": held,
                    "of": of,
                    "price": float(price),
                    "variance": float(variance[b]),
                }
                for limit, held, of, price in own
            ]
        )
    return found


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
