"""The arrays that the kernels work on, what is read off those of a sample, and all tolerances.

Every weight is in a state, an int8. Its break points are its bounds and, between them, the places
where its costs have a kink (the holding it trades from, and zero for the gross limit):

    state 2j: pinned at break point j          state 2j + 1: free between break points j and j + 1

so without kinks 0 is at the lower bound, 1 free, 2 at the upper bound. A row is 0 if it is slack,
1 if active at its upper limit, -1 at its lower limit. Two rows follow the given ones: the turnover
limit and the gross limit, whose coefficients are the signs of z - z0 and of z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from strategies.layers.optimisation.active_set.compilation import helper, maker

SOLVED, STALLED, REFUSED, INDEFINITE = 0, 1, 2, 3  # how the solve of a sample ended

ROUND_LIMIT = 60  # rounds of one attempt
PATIENCE = 3  # rounds without fewer violations before an attempt is given up
AT_ONCE = 8  # violated rows that a round activates together; of more, only the one missed most
REFINED = 1e-12  # relative residual of a solution beyond which it is solved for once more
EXACT = 1e-10  # relative residual of a solution
START = 0.5  # of P's diagonal in the first guess: the rest is common risk, the budget takes it up
CLIMB_LIMIT = 1000  # rounds of the dual method, beside one for each weight and row
CHASED = 64  # rounds after which twice as much counts as rounding
REFINEMENTS = 4  # of a solution
START_HALVINGS = 16  # of the turnover and gross multipliers; more digits save no rounds

RETURN_TOLERANCE = 1e-12  # of a multiplier, relative to P_ii
ROUNDING = 1e-14  # of a weight beyond its segment; of a multiplier, relative to the gradient
ROW_ROUNDING = 1e-13  # of a row beyond its limit
WEAK = 1e-12  # of a multiplier, relative to the gradient or P_ii: below it counts as zero
FEASIBLE = 1e-12  # how far bounds and rows may miss each other; what an active row may lack
DEPENDENT_ROW = 1e-10  # part of a row that has to be new, or it is a combination of rows before it


class Batch(NamedTuple):
    """A batch of problems, C-contiguous float64; a leading 1 is shared by the batch."""

    risk: np.ndarray  # (1|B, N, N), or (1, 0, 0) with a factor risk
    loadings: np.ndarray  # (1|B, N, K), or (1, 0, 0) with a dense risk
    specific: np.ndarray  # (1|B, N), or (1, 0)
    linear: np.ndarray  # (B, N) expected returns q
    bounds: np.ndarray  # (B, 2, N) lower, upper
    rows: np.ndarray  # (1|B, R, N), row 0 all ones
    limits: np.ndarray  # (B, 2, R + 2) lower, upper; the last two are turnover and gross
    trade: np.ndarray  # (B, 2, N) holdings z0 and cost c, or (1, 2, 0) without turnover terms
    gross: bool  # there is a gross limit


class Chain(NamedTuple):
    """What makes the samples of a batch consecutive dates, each traded from the one before.

    The linear term of a date is q + c h, with h what the weights of the date before have become;
    its turnover terms, if any, are of trading from h; its solve starts from theirs. All empty where
    samples do not depend on each other.
    """

    begins: np.ndarray  # (B,) bool: a chain begins, and nothing is held before
    cost: np.ndarray  # (B,) c
    growth: np.ndarray  # (B, N) of prices since the date before
    rates: np.ndarray  # (B, 3) since then: of interest on cash, on borrowed cash, of short fees
    holdings: np.ndarray  # (B, N) h, written; zero where a chain begins


class Sample(NamedTuple):
    """One problem of the batch; the shapes of ``Batch`` without B."""

    risk: np.ndarray
    loadings: np.ndarray
    specific: np.ndarray
    linear: np.ndarray
    bounds: np.ndarray
    rows: np.ndarray
    limits: np.ndarray
    trade: np.ndarray
    gross: bool


class Work(NamedTuple):
    """What is known about the sample in hand, and room to compute."""

    diagonal: np.ndarray  # (N,) of P
    sizes: np.ndarray  # (R + 1,) largest entry of q, of each given row
    breaks: np.ndarray  # (2..4, N) break points, ascending
    side: np.ndarray  # (2, N) signs of z - z0 and of z
    z: np.ndarray  # (N,) weights
    gradient: np.ndarray  # (N,) Pz - q, plus the given rows times their multipliers
    common: np.ndarray  # (K,) loadings' z
    inner: np.ndarray  # (R + 3, K)
    duals: np.ndarray  # (R + 2,)
    gaps: np.ndarray  # (R + 2,) by how much an active row is missed
    free: np.ndarray  # (N,) indices of the free weights
    fixed: np.ndarray  # (N,) indices of the pinned weights that are not zero
    matrix: np.ndarray  # (N^2,), or (K^2,) in factor form: Cholesky factor of the free block
    right: np.ndarray  # (R + 3, N) right-hand sides, then solutions
    coefficients: np.ndarray  # (R + 2, N) active rows on the free weights, orthonormal
    triangle: np.ndarray  # (R + 2, R + 2) what they were made orthonormal by
    targets: np.ndarray  # (R + 2,) what these are to sum to
    multipliers: np.ndarray  # (R + 2,) theirs
    active: np.ndarray  # (R + 2,) indices of the active rows
    schur: np.ndarray  # (R + 2, R + 2)
    step: np.ndarray  # (1, R + 2)
    base: np.ndarray  # (N,) and, below, (R + 2,): what a refinement is added to
    base_duals: np.ndarray
    start_gradient: np.ndarray  # (N,) and, below, (R + 2,): where a step of the dual method begins
    start_duals: np.ndarray


@maker
def sample_of(batch, b):
    return Sample(
        batch.risk[b % batch.risk.shape[0]],
        batch.loadings[b % batch.loadings.shape[0]],
        batch.specific[b % batch.specific.shape[0]],
        batch.linear[b],
        batch.bounds[b],
        batch.rows[b % batch.rows.shape[0]],
        batch.limits[b],
        batch.trade[b % batch.trade.shape[0]],
        batch.gross,
    )


@maker
def room_for(batch):
    n = batch.linear.shape[1]
    k = batch.loadings.shape[2]
    count = batch.limits.shape[2]
    kinks = int(batch.trade.shape[2] > 0) + int(batch.gross)
    return Work(
        np.empty(n),
        np.empty(1 + batch.rows.shape[1]),
        np.empty((2 + kinks, n)),
        np.zeros((2, n)),
        np.empty(n),
        np.empty(n),
        np.empty(k),
        np.empty((count + 1, k)),
        np.zeros(count),
        np.zeros(count),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty((k if batch.specific.shape[1] else n) ** 2),
        np.empty((count + 1, n)),
        np.empty((count, n)),
        np.empty((count, count)),
        np.empty(count),
        np.empty(count),
        np.empty(count, np.int64),
        np.empty((count, count)),
        np.empty((1, count)),
        np.empty(n),
        np.empty(count),
        np.empty(n),
        np.empty(count),
    )


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
