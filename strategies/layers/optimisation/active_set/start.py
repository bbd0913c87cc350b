"""The first states: those of the optimum for diag(P) alone, or those of an earlier solution."""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import START, START_HALVINGS, row_value
from strategies.layers.optimisation.active_set.compilation import helper


@helper
def cold_start(s, w, state, row_state):
    """States of the optimum for diag(P), the budget and, one after the other, the gross and the
    turnover limit, whose multipliers are found by bisection."""
    given = s.rows.shape[0]
    for row in range(s.limits.shape[1]):  # equalities active, all other rows slack
        row_state[row] = 1 if s.limits[0, row] == s.limits[1, row] else 0
    multiplier = w.multipliers[:2]
    multiplier[:] = 0.0
    row_state[0] = separable_optimum(s, w, 0.0, 0.0)
    top = 0.0
    for i in range(s.linear.shape[0]):
        top = max(top, abs(s.linear[i]), w.diagonal[i])
    for kink in range(1, -1, -1):
        row = given + kink
        limit = s.limits[1, row]
        if limit == np.inf or row_value(s, w, row, w.z) <= limit:
            continue
        row_state[row] = 1
        low, high = 0.0, 4 * top
        for _ in range(START_HALVINGS):
            multiplier[kink] = (low + high) / 2
            row_state[0] = separable_optimum(s, w, multiplier[0], multiplier[1])
            if row_value(s, w, row, w.z) > limit:
                low = multiplier[kink]
            else:
                high = multiplier[kink]
    last = w.breaks.shape[0] - 1
    for i in range(s.linear.shape[0]):  # states from where the weights are
        j = 0
        while j < last and w.breaks[j + 1, i] <= w.z[i]:
            j += 1
        state[i] = 2 * j if j == last or w.z[i] <= w.breaks[j, i] else 2 * j + 1


@helper
def separable_optimum(s, w, turnover, gross):
    """Optimum for diag(P), the budget, and given multipliers of the turnover and gross limits, by
    a safeguarded Newton method on the budget's multiplier (the total falls with it, piecewise
    linearly). Returns the budget's state: which of its ends binds, 1 for an equality."""
    n = s.linear.shape[0]
    last = w.breaks.shape[0] - 1
    below, above = -np.inf, np.inf
    reach = top = bottom = 0.0
    centre, inverse = w.right[0], w.right[1]
    for i in range(n):
        inverse[i] = 1 / (w.diagonal[i] * START)
        centre[i] = s.linear[i] * inverse[i]
        bottom += inverse[i]
        top += centre[i]
        reach = max(reach, abs(s.linear[i]), w.diagonal[i])
    least, target = s.limits[0, 0], s.limits[1, 0]
    budget_state = 1
    dual = (top - target) / bottom if least == target else 0.0
    for step in range(50):
        total = give = 0.0
        if last > 1:
            for i in range(n):
                z, moves = bent(s, w, i, centre[i] - dual * inverse[i], turnover, gross)
                inside = min(max(z, w.breaks[0, i]), w.breaks[last, i])
                give += inverse[i] if z == inside and moves else 0.0
                total += inside
                w.z[i] = inside
        else:  # apart and without writing, so that it runs in vectors
            for i in range(n):
                z = centre[i] - dual * inverse[i]
                low, high = w.breaks[0, i], w.breaks[1, i]
                total += low if z < low else (high if z > high else z)
                give += inverse[i] if low <= z <= high else 0.0
        if step == 0 and least <= total <= target and least < target:
            budget_state = 0
            break
        if step == 0 and total < least < target:
            budget_state, target = -1, least
        excess = total - target
        if abs(excess) <= 1e-7:
            break
        if excess > 0:
            below = dual
        else:
            above = dual
        if give > 0:
            dual += excess / give
        if give == 0 or not below < dual < above:
            if below == -np.inf:
                dual = above - reach
                reach *= 2
            elif above == np.inf:
                dual = below + reach
                reach *= 2
            else:
                dual = (below + above) / 2
    for i in range(n if last == 1 else 0):
        z = centre[i] - dual * inverse[i]
        w.z[i] = min(max(z, w.breaks[0, i]), w.breaks[1, i])
    return budget_state


@helper
def bent(s, w, i, z, turnover, gross):
    """Optimum of a weight with kinks, whose optimum without them is z; and whether it moves with
    z. Lift it by the widths of both, then let each kink, ascending, take its own twice."""
    inverse = w.right[1, i]
    holding = s.trade[0, i] if s.trade.shape[1] else 0.0
    trade = (s.trade[1, i] + turnover) * inverse if s.trade.shape[1] else 0.0
    short = gross * inverse
    z += trade + short
    if holding <= 0:
        z = min(z, max(holding, z - 2 * trade))
    z = min(z, max(0.0, z - 2 * short))
    if holding > 0:
        z = min(z, max(holding, z - 2 * trade))
    return z, not (z == holding and trade > 0) and not (z == 0 and short > 0)


@helper
def admit(s, w, state, row_state):
    """Make a given start one that this problem can have: nothing is pinned at infinity."""
    last = w.breaks.shape[0] - 1
    for i in range(s.linear.shape[0]):
        e = min(max(state[i], 0), 2 * last)
        if e == 0 and w.breaks[0, i] == -np.inf:
            e = 1
        elif e == 2 * last and w.breaks[last, i] == np.inf:
            e = 2 * last - 1
        state[i] = e
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if low == high:
            row_state[row] = 1
        elif (row_state[row] > 0 and high == np.inf) or (row_state[row] < 0 and low == -np.inf):
            row_state[row] = 0
        else:
            row_state[row] = min(max(row_state[row], -1), 1)
