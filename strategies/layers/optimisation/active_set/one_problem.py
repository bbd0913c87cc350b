"""One sample as the kernels see it: its break points, the signs and coefficients of its rows."""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.compilation import helper
from strategies.layers.optimisation.active_set.tolerances import FEASIBLE


@helper
def copy(source, out):
    """In place of ``out[:] = source``, whose error message alone takes two seconds to compile."""
    for i in range(len(out)):
        out[i] = source[i]


@helper
def largest(x):
    """Largest absolute value; by four running ones, which do not wait for each other."""
    a = b = c = d = 0.0
    whole = x.shape[0] - x.shape[0] % 4
    for i in range(0, whole, 4):
        a, b = max(a, abs(x[i])), max(b, abs(x[i + 1]))
        c, d = max(c, abs(x[i + 2])), max(d, abs(x[i + 3]))
    for i in range(whole, x.shape[0]):
        a = max(a, abs(x[i]))
    return max(max(a, b), max(c, d))


@helper
def prepare(s, w):
    """Diagonal, break points and sizes; False for numbers or limits that no weights can meet."""
    n = s.linear.shape[0]
    fine = True
    for i in range(n):
        w.diagonal[i] = diagonal_entry(s, i)
        set_breaks(s, w, i)
    for i in range(n):
        low, high = s.bounds[0, i], s.bounds[1, i]
        fine &= 0 < w.diagonal[i] < np.inf and abs(s.linear[i]) < np.inf
        fine &= low <= high + FEASIBLE and low < np.inf and high > -np.inf
    for i in range(s.specific.shape[0]):
        fine &= s.specific[i] > 0
    for i in range(s.trade.shape[1]):
        fine &= abs(s.trade[0, i]) < np.inf and 0 <= s.trade[1, i] < np.inf
    w.sizes[0] = largest(s.linear)
    for row in range(s.rows.shape[0]):
        w.sizes[1 + row] = largest(s.rows[row])
        least = most = 0.0
        for i in range(n):
            value = s.rows[row, i]
            low, high = s.bounds[0, i], s.bounds[1, i]
            fine &= abs(value) < np.inf
            least += value * (low if value > 0 else high) if value != 0 else 0.0
            most += value * (high if value > 0 else low) if value != 0 else 0.0
        fine &= s.limits[0, row] <= most + FEASIBLE and s.limits[1, row] >= least - FEASIBLE
    for row in range(s.limits.shape[1]):
        fine &= s.limits[0, row] <= s.limits[1, row] + FEASIBLE
    return fine


@helper
def diagonal_entry(s, i):
    """P_ii."""
    if s.specific.shape[0] == 0:
        return s.risk[i, i]
    value = s.specific[i]
    for k in range(s.loadings.shape[1]):
        value += s.loadings[i, k] * s.loadings[i, k]
    return value


@helper
def set_breaks(s, w, i):
    """Break points of weight i: its bounds and, clipped to them, its kinks."""
    low = s.bounds[0, i]
    high = max(low, s.bounds[1, i])
    w.breaks[0, i] = low
    last = 1
    if s.trade.shape[1]:
        w.breaks[last, i] = min(max(s.trade[0, i], low), high)
        last += 1
    if s.gross:
        kink = min(max(0.0, low), high)
        if last == 2 and kink < w.breaks[1, i]:
            w.breaks[2, i] = w.breaks[1, i]
            w.breaks[1, i] = kink
        else:
            w.breaks[last, i] = kink
        last += 1
    w.breaks[last, i] = high


@helper
def entries_sound(s, w):
    """Whether every entry of a dense P is finite and no larger than its variances allow,
    ``P_ij^2 <= P_ii P_jj``; after ``prepare``. All of P is read, which the rounds do not do."""
    beyond = 0
    for i in range(s.risk.shape[0]):
        room = w.diagonal[i] * (1 + 1e-8)
        for j in range(s.risk.shape[1]):
            beyond += not s.risk[i, j] * s.risk[i, j] <= room * w.diagonal[j]
    return beyond == 0


@helper
def coefficient(s, w, row, i):
    """Of weight i in a row; in the turnover and gross rows it is a sign."""
    given = s.rows.shape[0]
    return s.rows[row, i] if row < given else w.side[row - given, i]


@helper
def row_target(s, w, row, state):
    """What an active row sums to."""
    target = s.limits[1, row] if state > 0 else s.limits[0, row]
    if row == s.rows.shape[0]:
        for i in range(s.trade.shape[1]):
            target += w.side[0, i] * s.trade[0, i]
    return target


@helper
def row_value(s, w, row, z):
    """What a row sums to now: a combination, turnover or gross exposure."""
    value = 0.0
    if row < s.rows.shape[0]:
        for i in range(s.linear.shape[0]):
            value += s.rows[row, i] * z[i]
        return value
    for i in range(s.linear.shape[0]):
        value += abs(z[i] - s.trade[0, i]) if row == s.rows.shape[0] else abs(z[i])
    return value


@helper
def side_of(w, e, i, kink):
    """Sign of z - kink for weight i in state e."""
    low = w.breaks[e // 2, i]
    if e % 2 == 1:
        return 1.0 if low >= kink else -1.0
    return 1.0 if low > kink else (-1.0 if low < kink else 0.0)


@helper
def slopes(s, duals, i, at):
    """Slope of the costs of weight i at a point, to its left and to its right."""
    left = right = 0.0
    given = s.rows.shape[0]
    if s.trade.shape[1]:
        width = s.trade[1, i] + duals[given]
        left += width if at > s.trade[0, i] else -width
        right += width if at >= s.trade[0, i] else -width
    if s.gross:
        width = duals[given + 1]
        left += width if at > 0 else -width
        right += width if at >= 0 else -width
    return left, right


@helper
def segment_beside(w, i, at, step):
    """State of the segment to the right (step 1) or left (-1) of a break point."""
    last = w.breaks.shape[0] - 1
    j = 0 if step > 0 else last
    while w.breaks[j, i] * step <= at * step:
        j += step
    return 2 * j - 1 if step > 0 else 2 * j + 1


@helper
def missed_by_side(w, m, state):
    """By how much the free weights are below their segments, and above them, in total."""
    below = above = 0.0
    for a in range(m):
        i = w.free[a]
        j = state[i] // 2
        below += max(0.0, w.breaks[j, i] - w.z[i])
        above += max(0.0, w.z[i] - w.breaks[j + 1, i])
    return below, above
