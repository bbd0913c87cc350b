"""The dual active set, for the problem whose rounds cycle (Goldfarb and Idnani 1983).

"A numerically stable dual method for solving strictly convex quadratic programs", here with kinks.
All multipliers have the right sign at all times; weights may be beyond their segments, rows beyond
their limits. What is missed most is pinned or activated, and the multipliers move towards those
that ``solve_state`` finds for the states so changed, until one of them reaches zero: that limit is
let go, and they move on. Each step raises the dual function, so that nothing cycles, however many
limits meet in a corner; only what is active is worked on, however many rows there are.
"""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import (
    CHASED,
    DEPENDENT_ROW,
    FEASIBLE,
    RETURN_TOLERANCE,
    ROUNDING,
    ROW_ROUNDING,
    copy,
    missed_by_side,
    row_value,
    segment_beside,
    slopes,
)
from strategies.layers.optimisation.active_set.compilation import helper


@helper
def drop_rows(s, w, row_state, scale):
    """Drop rows with a wrong multiplier, and those that depend on others; return how many."""
    dropped = place = 0
    for row in range(s.limits.shape[1]):
        if row_state[row] == 0:
            continue
        wrong = row_state[row] * w.duals[row] < -ROUNDING * scale
        if (wrong and s.limits[0, row] < s.limits[1, row]) or w.triangle[place, place] == 0:
            row_state[row] = 0
            dropped += 1
        place += 1
    return dropped


@helper
def remember(w):
    """The multipliers and the gradient that the next step begins at."""
    copy(w.duals, w.start_duals)
    copy(w.gradient, w.start_gradient)


@helper
def climb(s, w, state, row_state, scale):
    """Move the multipliers from where they were to those of the states, or as far as all have the
    right sign. Returns 1 if a limit was let go there, 0 if not, -1 if nothing limits the way: no
    weights satisfy all constraints."""
    endless = point_along_ray(s, w, row_state)
    last = w.breaks.shape[0] - 1
    step = np.inf if endless else 1.0
    speed = 0.0
    if endless:
        for i in range(s.linear.shape[0]):
            speed = max(speed, abs(w.gradient[i] - w.start_gradient[i]))
    which = -1  # a weight, or behind all weights a row
    to_state = 0
    for row in range(s.limits.shape[1]):
        if row_state[row] == 0 or s.limits[0, row] == s.limits[1, row]:
            continue
        now, then = row_state[row] * w.start_duals[row], row_state[row] * w.duals[row]
        limit = now - DEPENDENT_ROW if endless else -ROUNDING * scale
        if then < limit and now < step * (now - then):
            step, which = max(now, 0.0) / (now - then), s.linear.shape[0] + row
    for i in range(s.linear.shape[0]):
        if state[i] % 2 == 1:
            continue
        at = w.breaks[state[i] // 2, i]
        left_now, right_now = slopes(s, w.start_duals, i, at)
        left, right = slopes(s, w.duals, i, at)
        tolerance = RETURN_TOLERANCE * w.diagonal[i] + ROUNDING * scale
        for side in range(-1, 2, 2):
            if at == w.breaks[last if side > 0 else 0, i]:
                continue
            now = side * (w.start_gradient[i] + (right_now if side > 0 else left_now))
            then = side * (w.gradient[i] + (right if side > 0 else left))
            limit = now - DEPENDENT_ROW * speed if endless else -tolerance
            if then < limit and now < step * (now - then):
                step, which = max(now, 0.0) / (now - then), i
                to_state = segment_beside(w, i, at, side)
    if which < 0 and endless:
        return -1
    if which < 0:
        remember(w)
        return 0
    for i in range(s.linear.shape[0]):
        w.start_gradient[i] += step * (w.gradient[i] - w.start_gradient[i])
    for row in range(s.limits.shape[1]):
        w.start_duals[row] += step * (w.duals[row] - w.start_duals[row])
    if which < s.linear.shape[0]:
        state[which] = to_state
    else:
        row_state[which - s.linear.shape[0]] = 0
    return 1


@helper
def point_along_ray(s, w, row_state):
    """Where an active row is a combination of others and missed, no weights satisfy them all: then
    the multipliers move along that combination. Write where a unit of the way leads to."""
    count = missed = 0
    for row in range(s.limits.shape[1]):
        if row_state[row] == 0:
            continue
        room = FEASIBLE * (1 + abs(s.limits[1 if row_state[row] > 0 else 0, row]))
        if abs(w.gaps[row]) > room:
            missed = count + 1
        count += 1
    if missed == 0:
        return False
    d = missed - 1
    sign = -np.sign(w.gaps[w.active[d]])
    copy(w.start_duals, w.duals)
    copy(w.start_gradient, w.gradient)
    share = w.multipliers
    for c in range(d, -1, -1):
        value = 1.0 if c == d else 0.0
        if c < d and w.triangle[c, c] > 0:
            value = -w.triangle[d, c]
            for e in range(c + 1, d):
                value -= share[e] * w.triangle[e, c]
            value /= w.triangle[c, c]
        share[c] = value
        row = w.active[c]
        w.duals[row] += sign * value
        if row < s.rows.shape[0] and value != 0:
            for i in range(s.linear.shape[0]):
                w.gradient[i] += sign * value * s.rows[row, i]
    return True


@helper
def pin_what_is_missed_most(s, w, m, state, row_state, rounds):
    """Activate the row that is missed by most, or pin the weights that are missed by more, all of
    one side; return whether there is one.

    What counts as rounding grows with the rounds, so that none is chased for ever.
    """
    loose = 2.0 ** (rounds // CHASED)
    worst = 0.0
    which = -1
    to_state = 0
    below, above = missed_by_side(w, m, state)
    for a in range(m):
        i = w.free[a]
        by = weight_missed_by(w, state, i, below >= above)
        if by > loose * ROUNDING * (1 + abs(w.z[i])):
            worst, which = max(worst, by), i
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if row_state[row] != 0 or (low == -np.inf and high == np.inf):
            continue
        value = row_value(s, w, row, w.z)
        if row >= s.rows.shape[0]:  # of weights beyond their segments, by the sign of the segment
            value = 0.0
            for i in range(s.linear.shape[0]):
                held = s.trade[0, i] if row == s.rows.shape[0] else 0.0
                value += w.side[row - s.rows.shape[0], i] * (w.z[i] - held)
        by = max(low - value, value - high)
        size = w.sizes[1 + row] if row < s.rows.shape[0] else 1.0
        beyond = low if value < low else high
        if by > loose * ROW_ROUNDING * (1 + abs(beyond)) and by > worst * size:
            worst, which = by / size, s.linear.shape[0] + row
            to_state = -1 if value < low < high else 1
    if which >= s.linear.shape[0]:
        row_state[which - s.linear.shape[0]] = to_state
        return True
    for a in range(m):
        i = w.free[a]
        if weight_missed_by(w, state, i, below >= above) > loose * ROUNDING * (1 + abs(w.z[i])):
            state[i] += -1 if below >= above else 1
    return which >= 0


@helper
def weight_missed_by(w, state, i, below):
    """How far a free weight is beyond its segment on one side."""
    j = state[i] // 2
    return w.breaks[j, i] - w.z[i] if below else w.z[i] - w.breaks[j + 1, i]
