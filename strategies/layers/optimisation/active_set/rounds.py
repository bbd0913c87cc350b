"""The primal-dual rounds: the weights of a guess of all states, and what the guess got wrong."""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import (
    AT_ONCE,
    FEASIBLE,
    RETURN_TOLERANCE,
    ROUNDING,
    ROW_ROUNDING,
    WEAK,
    coefficient,
    copy,
    largest,
    missed_by_side,
    row_target,
    row_value,
    segment_beside,
    side_of,
    slopes,
)
from strategies.layers.optimisation.active_set.compilation import helper
from strategies.layers.optimisation.active_set.linear_algebra import (
    add_rows,
    factorise,
    orthonormal_rows,
    solve_free,
    with_rows,
)


@helper
def solve_state(s, w, state, row_state, refine):
    """Weights, multipliers and gradient if each weight and row is as its state says.

    With ``refine``, what the weights and multipliers at hand are off by is solved for and added:
    where P is nearly singular, the first solution is the difference of much larger numbers.
    Returns how many weights are free (-1 if P is not positive definite) and the largest term of
    the gradient.
    """
    n = s.linear.shape[0]
    k = s.loadings.shape[1]
    dense = s.specific.shape[0] == 0
    m, pinned = place(s, w, state, refine)
    copy(w.z, w.base)
    copy(w.duals, w.base_duals)
    w.gradient[:] = 0.0
    w.common[:] = 0.0
    if dense:  # P z from the pinned weights
        add_rows(s.risk, w.fixed, pinned, w.z, w.gradient)
    else:
        add_rows(s.loadings, w.fixed, pinned, w.z, w.common)
    pull_on_free(s, w, row_state, m, refine)
    size = factorise(s, w, m)
    if size < 0:
        return -1, 0.0
    count = orthonormal_rows(s, w, row_state, m)
    solve_free(s, w, m, size, 1 + count)
    w.duals[:] = 0.0
    for r in range(count):
        row = w.active[r]
        value = row_target(s, w, row, row_state[row])
        for a in range(pinned):
            value -= coefficient(s, w, row, w.fixed[a]) * w.z[w.fixed[a]]
        w.gaps[row] = value
    with_rows(w, m, count, w.right[0, :m])
    for a in range(m):  # and P z from the free ones
        w.z[w.free[a]] = w.right[0, a]
    if dense:
        add_rows(s.risk, w.free, m, w.z, w.gradient)
    else:
        add_rows(s.loadings, w.free, m, w.z, w.common)
    for r in range(count if refine else 0):
        w.duals[w.active[r]] += w.base_duals[w.active[r]]
    for a in range(m if refine else 0):
        w.z[w.free[a]] += w.base[w.free[a]]
    if not dense:
        for i in range(n):
            value = s.specific[i] * w.z[i]
            for t in range(k):
                value += s.loadings[i, t] * w.common[t]
            w.gradient[i] = value
    scale = max(largest(w.gradient), w.sizes[0])
    for i in range(n):
        w.gradient[i] -= s.linear[i]
    for r in range(count):
        row = w.active[r]
        dual = w.duals[row]
        if row < s.rows.shape[0] and dual != 0:
            for i in range(n):
                w.gradient[i] += dual * s.rows[row, i]
            scale = max(scale, abs(dual) * w.sizes[1 + row])
    return m, scale


@helper
def pull_on_free(s, w, row_state, m, refine):
    """The right-hand side of the free weights: what pulls at them where all weights are now."""
    for a in range(m):
        p = w.free[a]
        value = s.linear[p] - w.gradient[p]
        for t in range(s.loadings.shape[1]):
            value -= s.loadings[p, t] * w.common[t]
        if s.specific.shape[0]:
            value -= s.specific[p] * w.z[p]
        if s.trade.shape[1]:
            value -= w.side[0, p] * s.trade[1, p]
        for row in range(s.limits.shape[1] if refine else 0):
            if row_state[row] != 0:
                value -= w.duals[row] * coefficient(s, w, row, p)
        w.right[0, a] = value


@helper
def place(s, w, state, refine):
    """Pinned weights on their break points, free ones at zero, or where they are; returns how many
    are free, and how many are elsewhere than at zero so far."""
    m = pinned = 0
    for i in range(s.linear.shape[0]):  # without a branch, for none could be predicted
        e = state[i]
        free = e & 1
        z = (w.z[i] if refine else 0.0) if free else w.breaks[e >> 1, i]
        w.z[i] = z
        w.free[m] = i
        m += free
        w.fixed[pinned] = i
        pinned += int(z != 0)
    for i in range(s.trade.shape[1]):
        w.side[0, i] = side_of(w, state[i], i, s.trade[0, i])
    if s.gross:
        for i in range(s.linear.shape[0]):
            w.side[1, i] = side_of(w, state[i], i, 0.0)
    return m, pinned


@helper
def flip_pinned(s, w, state, scale):
    """Free the weights that lower the objective as they leave their break points."""
    flipped = 0
    last = w.breaks.shape[0] - 1
    for i in range(s.linear.shape[0]):
        tolerance = RETURN_TOLERANCE * w.diagonal[i] + ROUNDING * scale
        if last == 1 and (state[i] - 1) * w.gradient[i] <= tolerance:
            continue  # without kinks, one comparison clears most
        if state[i] % 2 == 1:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = slopes(s, w.duals, i, at)
        if at < w.breaks[last, i] and w.gradient[i] + right < -tolerance:
            state[i] = segment_beside(w, i, at, 1)
            flipped += 1
        elif at > w.breaks[0, i] and w.gradient[i] + left > tolerance:
            state[i] = segment_beside(w, i, at, -1)
            flipped += 1
    return flipped


@helper
def flip_free(w, m, state):
    """Pin the free weights that have left their segments.

    Only those beyond the side that is missed by more in total, as in variable fixing for the
    continuous knapsack (Kiwiel 2008): pinned on both sides at once, too few would stay free to meet
    the budget.
    """
    flipped = 0
    below, above = missed_by_side(w, m, state)
    for a in range(m):
        i = w.free[a]
        j = state[i] // 2
        room = ROUNDING * (1 + abs(w.z[i]))
        if w.z[i] < w.breaks[j, i] - room:
            flipped += 1
            if below >= above:
                state[i] = 2 * j
        elif w.z[i] > w.breaks[j + 1, i] + room:
            flipped += 1
            if above >= below:
                state[i] = 2 * j + 2
    return flipped


@helper
def flip_rows(s, w, state, row_state, scale):
    """Drop rows with a wrong multiplier, add rows that are missed."""
    flipped = missed = 0
    worst = -1.0
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if row_state[row] != 0:
            room = FEASIBLE * (1 + abs(high if row_state[row] > 0 else low))
            if low < high and row_state[row] * w.duals[row] < -ROUNDING * scale:
                row_state[row] = 0
                flipped += 1
            elif abs(w.gaps[row]) > room:
                free_for_row(s, w, state, row)
                flipped += 1
        elif low > -np.inf or high < np.inf:
            value = row_value(s, w, row, w.z)
            over = value > high + ROW_ROUNDING * (1 + abs(high))
            if over or value < low - ROW_ROUNDING * (1 + abs(low)):
                row_state[row] = 1 if over else -1
                flipped += 1
                by = max(value - high, low - value)
                by = by / w.sizes[1 + row] if row < s.rows.shape[0] else np.inf
                if by > worst:
                    worst = by
                    w.active[missed], w.active[0] = w.active[0], row  # the worst in front
                else:
                    w.active[missed] = row
                missed += 1
    for k in range(1, missed if missed > AT_ONCE else 0):
        row_state[w.active[k]] = 0
    return flipped


@helper
def free_for_row(s, w, state, row):
    """Free the pinned weight that fills the gap of a row at the least cost."""
    best = np.inf
    which = -1
    direction = 0
    for i in range(s.linear.shape[0]):
        share = coefficient(s, w, row, i)
        if state[i] % 2 == 1 or share == 0:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = slopes(s, w.duals, i, at)
        if w.gaps[row] * share > 0:
            price = w.gradient[i] + right
            possible = at < w.breaks[w.breaks.shape[0] - 1, i]
            step = 1
        else:
            price = -w.gradient[i] - left
            possible = at > w.breaks[0, i]
            step = -1
        if possible and price / abs(share) < best:
            best = price / abs(share)
            which = i
            direction = step
    if which >= 0:
        state[which] = segment_beside(w, which, w.breaks[state[which] // 2, which], direction)


@helper
def let_go_of_weak(s, w, state, row_state, scale):
    """At a solution, let go of every limit whose multiplier is zero.

    The weights stay where they are, and their gradient is as though the limit was not there.
    """
    last = w.breaks.shape[0] - 1
    for row in range(s.limits.shape[1]):
        if s.limits[0, row] < s.limits[1, row] and abs(w.duals[row]) <= WEAK * scale:
            row_state[row] = 0
    for i in range(s.linear.shape[0]):
        room = WEAK * max(scale, w.diagonal[i])
        if state[i] % 2 == 1 or (last == 1 and abs(w.gradient[i]) > room):
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = slopes(s, w.duals, i, at)
        if at < w.breaks[last, i] and w.gradient[i] + right <= room:
            state[i] = segment_beside(w, i, at, 1)
        elif at > w.breaks[0, i] and w.gradient[i] + left >= -room:
            state[i] = segment_beside(w, i, at, -1)


@helper
def symmetric(s, w):
    """Whether a dense P is, between the weights that are not zero: no other entries were read
    in one place as P_ij and in another as P_ji."""
    unequal = 0
    for i in range(s.risk.shape[0]):
        for j in range(i if w.z[i] != 0 else 0):
            if w.z[j] != 0:
                apart = s.risk[i, j] - s.risk[j, i]
                unequal += not apart * apart <= 1e-16 * w.diagonal[i] * w.diagonal[j]
    return unequal == 0


@helper
def free_residual(s, w, m, scale):
    """Largest gradient of a free weight, without unit."""
    worst = mean = 0.0
    for i in range(s.linear.shape[0]):
        mean += w.diagonal[i] / s.linear.shape[0]
    for a in range(m):
        p = w.free[a]
        value = w.gradient[p]
        if s.trade.shape[1]:
            value += w.side[0, p] * (s.trade[1, p] + w.duals[s.rows.shape[0]])
        if s.gross:
            value += w.side[1, p] * w.duals[s.rows.shape[0] + 1]
        if not abs(value) <= worst:
            worst = abs(value)
    return worst / max(scale, mean)


@helper
def residual_of(s, w, m, scale):
    """Largest residual of the optimality conditions, without unit; NaN if what was read of P is
    not symmetric."""
    if not symmetric(s, w):
        return np.nan
    worst = free_residual(s, w, m, scale)
    for row in range(s.limits.shape[1]):
        if s.limits[0, row] > -np.inf or s.limits[1, row] < np.inf:
            value = row_value(s, w, row, w.z)
            worst = max(worst, value - s.limits[1, row], s.limits[0, row] - value)
    return worst


@helper
def clip_free(w, state, m):
    """Free weights that rounding has moved beyond their segments, back onto them."""
    for a in range(m):
        p = w.free[a]
        j = state[p] // 2
        w.z[p] = min(max(w.z[p], w.breaks[j, p]), w.breaks[j + 1, p])
