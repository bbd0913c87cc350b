"""Which constraints bind at a solution, and at what price: the multipliers, by name.

A shadow price is the gain of the objective, ``q'z - 1/2 z'Pz`` less what turnover costs, for one
more unit of the limit. What the expected return of each weight pays for is the stationarity of the
Lagrangian (Boyd and Vandenberghe 2004, section 5.5.3):

    q  =  P z + rows'y + c s + price of the cap - price of the floor

with y the multipliers of the rows, c those of turnover and gross exposure and s their signs. Where
a weight stands exactly at its holding or at zero the sign may lie anywhere from -1 to 1, and the
smallest price is taken.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from strategies.layers.optimisation.problem import Problem, Solution

AT_LIMIT = 1e-6  # fractions of the portfolio: so near, a weight is at its limit


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
        own: list[dict[str, object]] = []

        def add(name: str, at_it: int, of: int, price: float, own: list = own, b: int = b) -> None:
            own.append(
                {
                    "limit": name,
                    "held": at_it,
                    "of": of,
                    "price": float(price),
                    "variance": float(variance[b]),
                }
            )

        for name, bound in (("floor", lower), ("cap", upper)):
            limited = free[b] & np.isfinite(bound[b])
            at = limited & (np.abs(z[b] - bound[b]) <= AT_LIMIT)
            if limited.any():
                price = terms[name][b][at].max(initial=0.0)
                add(name, int(at.sum()), int(limited.sum()), price)
        for r in range(count):
            gap = np.minimum(sums[b, r] - row_lower[b, r], row_upper[b, r] - sums[b, r])
            add(problem.row_name(r), int(gap <= AT_LIMIT), 1, duals[b, r])
        if turnover is not None and holdings is not None:
            gap = turnover[b] - np.abs(z[b] - holdings[b]).sum()
            add("turnover", int(gap <= AT_LIMIT), 1, duals[b, count])
        if gross is not None:
            add("gross", int(gross[b] - np.abs(z[b]).sum() <= AT_LIMIT), 1, duals[b, count + 1])
        found.append(own)
    return found


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
