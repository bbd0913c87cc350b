"""The slow, sure way for the rare sample whose rounds stall: a primal active-set method."""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.compilation import helper
from strategies.layers.optimisation.active_set.one_problem import (
    coefficient,
    row_value,
    segment_beside,
    slopes,
)
from strategies.layers.optimisation.active_set.tolerances import (
    RETURN_TOLERANCE,
    ROUNDING,
    ROW_ROUNDING,
)


@helper
def primal_step(s, w, state, row_state, point, m, scale, bland):
    """One step of a primal active-set method (Nocedal & Wright 2006, section 16.5).

    Walk from ``point`` (feasible) towards the optimum of the current states, until a break point
    or a row stops it, which then becomes active. Where nothing does, let go of the one whose
    multiplier is most wrong (under Bland's rule the first that is wrong). The objective never
    rises, so it ends.

    Returns the length of the step from 0 to 1, or -1 at the optimum.
    """
    n = s.linear.shape[0]
    length, stop, stop_state = weight_in_the_way(w, state, point, m)
    length, stop, stop_state = row_in_the_way(s, w, row_state, point, m, length, stop, stop_state)
    for a in range(m):
        p = w.free[a]
        point[p] += length * (w.z[p] - point[p])
    if stop >= n:
        row_state[stop - n] = stop_state
        return length
    if stop >= 0:
        state[stop] = stop_state
        point[stop] = w.breaks[stop_state // 2, stop]
        return length
    return length if let_go(s, w, state, row_state, scale, bland) else -1.0


@helper
def weight_in_the_way(w, state, point, m):
    """Length of the step up to the first break point; the weight it stops at and its state then."""
    length = 1.0
    stop = -1
    stop_state = 0
    for a in range(m):
        p = w.free[a]
        j = state[p] // 2
        low, high = w.breaks[j, p], w.breaks[j + 1, p]
        room = ROUNDING * (1 + abs(w.z[p]))
        if w.z[p] > high + room and high - point[p] < length * (w.z[p] - point[p]):
            length = max(0.0, (high - point[p]) / (w.z[p] - point[p]))
            stop, stop_state = p, 2 * j + 2
        elif w.z[p] < low - room and point[p] - low < length * (point[p] - w.z[p]):
            length = max(0.0, (point[p] - low) / (point[p] - w.z[p]))
            stop, stop_state = p, 2 * j
    return length, stop, stop_state


@helper
def row_in_the_way(s, w, row_state, point, m, length, stop, stop_state):
    """The same, with the rows; they are numbered from N on."""
    n = s.linear.shape[0]
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if row_state[row] != 0 or (low == -np.inf and high == np.inf):
            continue
        here = row_value(s, w, row, point)
        change = 0.0
        for a in range(m):
            p = w.free[a]
            change += coefficient(s, w, row, p) * (w.z[p] - point[p])
        room = ROW_ROUNDING * (1 + abs(here))
        if here + change > high + room and high - here < length * change:
            length = max(0.0, (high - here) / change)
            stop, stop_state = n + row, 1
        elif here + change < low - room and here - low < -length * change:
            length = max(0.0, (low - here) / change)
            stop, stop_state = n + row, -1
    return length, stop, stop_state


@helper
def let_go(s, w, state, row_state, scale, bland):
    """Free the pinned weight or drop the row whose multiplier is most wrong; whether any is."""
    n = s.linear.shape[0]
    last = w.breaks.shape[0] - 1
    worst = 0.0
    which = -1
    release = 0
    for i in range(n):
        if state[i] % 2 == 1:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = slopes(s, w, i, at)
        tolerance = RETURN_TOLERANCE * w.diagonal[i] + ROUNDING * scale
        up = -(w.gradient[i] + right) if at < w.breaks[last, i] else 0.0
        down = w.gradient[i] + left if at > w.breaks[0, i] else 0.0
        if max(up, down) > max(tolerance, worst) and not (bland and which >= 0):
            worst = max(up, down)
            which, release = i, segment_beside(w, i, at, 1 if up > down else -1)
    for row in range(s.limits.shape[1]):
        wrong = -row_state[row] * w.duals[row]
        wrong = wrong if s.limits[0, row] < s.limits[1, row] else 0.0
        if wrong > max(ROUNDING * scale, worst) and not (bland and which >= 0):
            worst = wrong
            which, release = n + row, 0
    if which >= n:
        row_state[which - n] = release
    elif which >= 0:
        state[which] = release
    return which >= 0
