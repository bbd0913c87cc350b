"""Compiled kernels of the active-set solver: one sample after the other, no n^3 work.

Read in this order: ``solve_batch`` (the rounds), ``_solve_state`` (the weights that belong to a
guess of what holds each weight), ``_flip`` (what the guess got wrong), ``differentiate_batch``
(the gradient at the solution), ``_step`` (the slow, sure way for the rare sample that stalls).

Every weight is in a state, an int8. Its break points are its bounds and, between them, the places
where its costs have a kink (the holding it trades from, and zero for the gross limit):

    state 2j: held at break point j            state 2j + 1: free between break points j and j + 1

so without kinks 0 is at the lower bound, 1 free, 2 at the upper bound. A row is 0 if it is slack,
1 if held at its upper limit, -1 at its lower limit. Two rows follow the given ones: the turnover
limit and the gross limit, whose coefficients are the signs of z - z0 and of z.

All helpers are in this one file because Numba's cache on disk does not notice an edit elsewhere.
The kernels are safe in threads (they release the GIL) and after a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

SOLVED, STALLED, REFUSED, INDEFINITE = 0, 1, 2, 3

ROUND_LIMIT = 60  # rounds of one attempt
WALK_LIMIT = 100  # steps of the primal method, for each weight and row
PATIENCE = 6  # rounds without fewer violations before an attempt is given up
HOMOTOPY = (0.0, 0.3, 0.03, 0.003, 0.0)  # P + tau diag(P): the plain attempt, then a path to it
START = -0.5  # tau of the first guess: half of a stock's variance is common, the budget takes it up
START_HALVINGS = 16  # of the turnover and gross multipliers; more digits save no rounds
RETURN_TOLERANCE = 1e-12  # of a multiplier, relative to P_ii
ROUNDING = 1e-14  # of a weight beyond its segment; of a multiplier, relative to the gradient
DEPENDENT = 1e-10  # part of a row that has to be new, or it is a combination of rows before it
FEASIBLE = 1e-12  # how far bounds and rows may miss each other

# Nothing that assumes NaN away: a NaN has to reach the residual.
FAST = {"reassoc", "contract", "nsz", "arcp"}

_OPTIONS: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy"}
# Helpers are inlined: a call would hand over the dozens of words that describe the arrays of Sample
# and Work, which takes as long as the arithmetic on a handful of free weights.
_INNER: dict[str, Any] = _OPTIONS | {
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_maker: Any = njit(**_INNER)
# Counting references to the arrays on every access would take most of the time; helpers that
# neither make nor return arrays go without.
_helper: Any = njit(**(_INNER | {"_nrt": False}))


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile for callers in Python, and keep it on disk where there is a place to."""
    try:
        return njit(**_OPTIONS, nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the home folder is writable
        return njit(**_OPTIONS, nogil=True)(function)


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


class Row(NamedTuple):
    """What makes the samples of a batch dates in a row, each traded from the one before.

    The linear term of a date that does not begin a row is q + c h, with h what the weights of the
    date before have become; its solve starts from theirs. All empty where samples do not depend on
    each other.
    """

    begins: np.ndarray  # (B,) bool: nothing is held before
    cost: np.ndarray  # (B,) c
    drift: np.ndarray  # (B, N) growth of prices since the date before
    held: np.ndarray  # (B, N) h, written; zero where a row begins


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
    gaps: np.ndarray  # (R + 2,) what an active row still lacks
    free: np.ndarray  # (N,) indices of the free weights
    fixed: np.ndarray  # (N,) indices of the held weights that are not zero
    matrix: np.ndarray  # (N^2,), or (K^2,) in factor form: Cholesky factor of the free block
    right: np.ndarray  # (R + 3, N) right-hand sides, then solutions
    coefficients: np.ndarray  # (R + 2, N) active rows on the free weights, orthonormal
    triangle: np.ndarray  # (R + 2, R + 2) what they were made orthonormal by
    lacking: np.ndarray  # (R + 2,) what these are to sum to
    multipliers: np.ndarray  # (R + 2,) theirs
    active: np.ndarray  # (R + 2,) indices of the active rows
    schur: np.ndarray  # (R + 2, R + 2)
    step: np.ndarray  # (1, R + 2)


@_maker
def _sample(batch, b):
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


@_maker
def _work(batch):
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
    )


# ---- The problem of one sample ------------------------------------------------------------------


@_helper
def _diagonal(s, i):
    """P_ii."""
    if s.specific.shape[0] == 0:
        return s.risk[i, i]
    value = s.specific[i]
    for k in range(s.loadings.shape[1]):
        value += s.loadings[i, k] * s.loadings[i, k]
    return value


@_helper
def _set_breaks(s, w, i):
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


@_helper
def _largest(x):
    """Largest absolute value; by four running ones, which do not wait for each other."""
    a = b = c = d = 0.0
    whole = x.shape[0] - x.shape[0] % 4
    for i in range(0, whole, 4):
        a, b = max(a, abs(x[i])), max(b, abs(x[i + 1]))
        c, d = max(c, abs(x[i + 2])), max(d, abs(x[i + 3]))
    for i in range(whole, x.shape[0]):
        a = max(a, abs(x[i]))
    return max(max(a, b), max(c, d))


@_helper
def _prepare(s, w):
    """Diagonal, break points and sizes; False for numbers or limits that no weights can meet."""
    n = s.linear.shape[0]
    fine = True
    for i in range(n):
        w.diagonal[i] = _diagonal(s, i)
        _set_breaks(s, w, i)
    for i in range(n):
        low, high = s.bounds[0, i], s.bounds[1, i]
        fine &= 0 < w.diagonal[i] < np.inf and abs(s.linear[i]) < np.inf
        fine &= low <= high + FEASIBLE and low < np.inf and high > -np.inf
    for i in range(s.specific.shape[0]):
        fine &= s.specific[i] > 0
    for i in range(s.trade.shape[1]):
        fine &= abs(s.trade[0, i]) < np.inf and 0 <= s.trade[1, i] < np.inf
    w.sizes[0] = _largest(s.linear)
    for row in range(s.rows.shape[0]):
        w.sizes[1 + row] = _largest(s.rows[row])
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


@_helper
def _sound(s, w):
    """Whether every entry of a dense P is finite and no larger than its variances allow,
    ``P_ij^2 <= P_ii P_jj``; after ``_prepare``. All of P is read, which the rounds do not do."""
    beyond = 0
    for i in range(s.risk.shape[0]):
        room = w.diagonal[i] * (1 + 1e-8)
        for j in range(s.risk.shape[1]):
            beyond += not s.risk[i, j] * s.risk[i, j] <= room * w.diagonal[j]
    return beyond == 0


@_helper
def _coefficient(s, w, row, i):
    """Of weight i in a row; in the turnover and gross rows it is a sign."""
    given = s.rows.shape[0]
    return s.rows[row, i] if row < given else w.side[row - given, i]


@_helper
def _target(s, w, row, state):
    """What an active row sums to."""
    target = s.limits[1, row] if state > 0 else s.limits[0, row]
    if row == s.rows.shape[0]:
        for i in range(s.trade.shape[1]):
            target += w.side[0, i] * s.trade[0, i]
    return target


@_helper
def _slopes(s, w, i, at):
    """Slope of the costs of weight i at a point, to its left and to its right."""
    left = right = 0.0
    given = s.rows.shape[0]
    if s.trade.shape[1]:
        width = s.trade[1, i] + w.duals[given]
        left += width if at > s.trade[0, i] else -width
        right += width if at >= s.trade[0, i] else -width
    if s.gross:
        width = w.duals[given + 1]
        left += width if at > 0 else -width
        right += width if at >= 0 else -width
    return left, right


@_helper
def _neighbour(w, i, at, step):
    """State of the segment to the right (step 1) or left (-1) of a break point."""
    last = w.breaks.shape[0] - 1
    j = 0 if step > 0 else last
    while w.breaks[j, i] * step <= at * step:
        j += step
    return 2 * j - 1 if step > 0 else 2 * j + 1


# ---- Linear algebra on the free weights ---------------------------------------------------------


@_helper
def _cholesky(a, n):
    """Lower factor in place, row by row, with reciprocals on its diagonal; False if a pivot is not
    clearly positive."""
    for i in range(n):
        before = a[i, i]
        for j in range(i):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            a[i, j] = value * a[j, j]
        value = before
        for k in range(i):
            value -= a[i, k] * a[i, k]
        if not value > 1e-15 * before:
            return False
        a[i, i] = 1 / np.sqrt(value)
    return True


@_helper
def _triangles(a, n, x, count):
    """Solve ``a a' x = x`` in place for each of the ``count`` rows of x, with the lower factor a,
    reciprocals on its diagonal. Side by side: the sums of one row do not wait for another's."""
    for i in range(n):
        for r in range(count):
            value = x[r, i]
            for k in range(i):
                value -= a[i, k] * x[r, k]
            x[r, i] = value * a[i, i]
    for i in range(n - 1, -1, -1):
        for r in range(count):
            value = x[r, i] * a[i, i]
            x[r, i] = value
            for k in range(i):
                x[r, k] -= value * a[i, k]


@_helper
def _factorise(s, w, m, tau):
    """Cholesky factor of the m free weights' block of P + tau diag(P), or by Woodbury of
    ``I + F'D^-1 F`` where that is smaller. Returns its size, -1 if P is not positive definite."""
    k = s.loadings.shape[1]
    if s.specific.shape[0] == 0 or m <= k:
        a = w.matrix[: m * m].reshape(m, m)
        for i in range(m):
            p = w.free[i]
            for j in range(i + 1):
                if s.specific.shape[0] == 0:
                    a[i, j] = s.risk[p, w.free[j]]
                else:
                    value = 0.0
                    for t in range(k):
                        value += s.loadings[p, t] * s.loadings[w.free[j], t]
                    a[i, j] = value
            a[i, i] = (1 + tau) * w.diagonal[p]
        return m if _cholesky(a, m) else -1
    a = w.matrix[: k * k].reshape(k, k)
    a[:] = 0.0
    for i in range(m):
        p = w.free[i]
        weight = 1 / (s.specific[p] + tau * w.diagonal[p])
        for t in range(k):
            value = s.loadings[p, t] * weight
            for u in range(t + 1):
                a[t, u] += value * s.loadings[p, u]
    for t in range(k):
        a[t, t] += 1
    return k if _cholesky(a, k) else -1


@_helper
def _solve_free(s, w, m, size, tau, count):
    """Multiply the first ``count`` rows of ``right`` by the inverse of the free block."""
    a = w.matrix[: size * size].reshape(size, size)
    x = w.right
    if s.specific.shape[0] == 0 or m <= s.loadings.shape[1]:
        _triangles(a, m, x, count)
        return
    inner = w.inner
    inner[:] = 0.0
    for i in range(m):
        p = w.free[i]
        for r in range(count):
            x[r, i] /= s.specific[p] + tau * w.diagonal[p]
            for t in range(size):
                inner[r, t] += s.loadings[p, t] * x[r, i]
    _triangles(a, size, inner, count)
    for i in range(m):
        p = w.free[i]
        for r in range(count):
            value = 0.0
            for t in range(size):
                value += s.loadings[p, t] * inner[r, t]
            x[r, i] -= value / (s.specific[p] + tau * w.diagonal[p])


@_helper
def _gather_rows(s, w, row_state, m):
    """Active rows on the free weights; returns how many are active.

    ``coefficients`` holds them made orthonormal one after the other, C = triangle Q, a row that is
    a combination of earlier ones as zero; so does ``right`` after its first.
    """
    count = 0
    for row in range(s.limits.shape[1]):
        if row_state[row] == 0:
            continue
        w.active[count] = row
        q = w.coefficients[count]
        before = 0.0
        for a in range(m):
            q[a] = _coefficient(s, w, row, w.free[a])
            before += q[a] * q[a]
        for c in range(count):
            w.triangle[count, c] = 0.0
        for _ in range(2 if count else 0):  # twice is enough for orthogonality to rounding
            for c in range(count):
                value = 0.0
                for a in range(m):
                    value += q[a] * w.coefficients[c, a]
                for a in range(m):
                    q[a] -= value * w.coefficients[c, a]
                w.triangle[count, c] += value
        norm = 0.0
        for a in range(m):
            norm += q[a] * q[a]
        norm = np.sqrt(norm)
        if norm <= DEPENDENT * np.sqrt(before):
            norm = 0.0
        w.triangle[count, count] = norm
        for a in range(m):
            q[a] = q[a] / norm if norm > 0 else 0.0
            w.right[1 + count, a] = q[a]
        count += 1
    return count


@_helper
def _solve_rows(w, m, count, x):
    """Multipliers y and, in x (m,), the solution of ``K x + C'y = right, C x = gaps``.

    On entry x holds K^-1 right and ``right`` after its first K^-1 Q'. A dependent row gets no
    multiplier and does not bind x; what it lacks, and zero for all others, is in ``gaps``
    afterwards. y is in ``duals[active]``.
    """
    schur, step, y = w.schur, w.step, w.duals
    for r in range(count):
        gap = w.gaps[w.active[r]]
        for c in range(r):
            gap -= w.triangle[r, c] * w.lacking[c]
        bound = w.triangle[r, r] > 0
        w.lacking[r] = gap / w.triangle[r, r] if bound else 0.0  # what row r of Q is to sum to
        w.gaps[w.active[r]] = 0.0 if bound else gap
        for c in range(r + 1):
            value = 0.0 if bound or c < r else 1.0
            for i in range(m):
                value += w.coefficients[r, i] * w.right[1 + c, i]
            schur[r, c] = value
    regular = _cholesky(schur, count)
    w.multipliers[:count] = 0.0
    for _ in range(2 if regular else 0):  # again, so that rows hold to rounding if x starts large
        for r in range(count):
            value = -w.lacking[r]
            for i in range(m):
                value += w.coefficients[r, i] * x[i]
            step[0, r] = value
        _triangles(schur, count, step, 1)
        for r in range(count):
            w.multipliers[r] += step[0, r]
            for i in range(m):
                x[i] -= step[0, r] * w.right[1 + r, i]
    y[:] = 0.0
    for r in range(count - 1, -1, -1):  # y = triangle^-T times the multipliers of Q
        if w.triangle[r, r] == 0:
            continue
        value = w.multipliers[r]
        for c in range(r + 1, count):
            if w.triangle[c, c] > 0:
                value -= w.triangle[c, r] * y[w.active[c]]
        y[w.active[r]] = value / w.triangle[r, r]


# ---- The weights of a state ---------------------------------------------------------------------


@_helper
def _side(w, e, i, kink):
    """Sign of z - kink for weight i in state e."""
    low = w.breaks[e // 2, i]
    if e % 2 == 1:
        return 1.0 if low >= kink else -1.0
    return 1.0 if low > kink else (-1.0 if low < kink else 0.0)


@_helper
def _place(s, w, state):
    """Held weights on their break points, free ones at zero; returns how many are free, and how
    many are held elsewhere than at zero."""
    m = held = 0
    for i in range(s.linear.shape[0]):  # without a branch, for none could be predicted
        e = state[i]
        free = e & 1
        z = 0.0 if free else w.breaks[e >> 1, i]
        w.z[i] = z
        w.free[m] = i
        m += free
        w.fixed[held] = i
        held += int(z != 0)
    for i in range(s.trade.shape[1]):
        w.side[0, i] = _side(w, state[i], i, s.trade[0, i])
    if s.gross:
        for i in range(s.linear.shape[0]):
            w.side[1, i] = _side(w, state[i], i, 0.0)
    return m, held


@_helper
def _add_rows(matrix, index, count, z, total):
    """Add z_i times row i of the matrix for the first ``count`` indices i, four in a pass."""
    a = 0
    while a + 4 <= count:
        i, j, k, m = index[a], index[a + 1], index[a + 2], index[a + 3]
        zi, zj, zk, zm = z[i], z[j], z[k], z[m]
        for t in range(matrix.shape[1]):
            total[t] += (zi * matrix[i, t] + zj * matrix[j, t]) + (
                zk * matrix[k, t] + zm * matrix[m, t]
            )
        a += 4
    for b in range(a, count):
        i = index[b]
        zi = z[i]
        for t in range(matrix.shape[1]):
            total[t] += zi * matrix[i, t]


@_helper
def _solve_state(s, w, state, row_state, tau):
    """Weights, multipliers and gradient if each weight and row is held as its state says.

    P is ``P + tau diag(P)``. Returns how many weights are free (-1 if P is not positive definite)
    and the largest term of the gradient.
    """
    n = s.linear.shape[0]
    k = s.loadings.shape[1]
    dense = s.specific.shape[0] == 0
    m, held = _place(s, w, state)
    w.gradient[:] = 0.0
    w.common[:] = 0.0
    if dense:  # P z from the held weights
        _add_rows(s.risk, w.fixed, held, w.z, w.gradient)
    else:
        _add_rows(s.loadings, w.fixed, held, w.z, w.common)
    for a in range(m):
        p = w.free[a]
        value = s.linear[p] - w.gradient[p]
        for t in range(k):
            value -= s.loadings[p, t] * w.common[t]
        if s.trade.shape[1]:
            value -= w.side[0, p] * s.trade[1, p]
        w.right[0, a] = value
    size = _factorise(s, w, m, tau)
    if size < 0:
        return -1, 0.0
    count = _gather_rows(s, w, row_state, m)
    _solve_free(s, w, m, size, tau, 1 + count)
    w.duals[:] = 0.0
    for r in range(count):
        row = w.active[r]
        value = _target(s, w, row, row_state[row])
        for a in range(held):
            value -= _coefficient(s, w, row, w.fixed[a]) * w.z[w.fixed[a]]
        w.gaps[row] = value
    _solve_rows(w, m, count, w.right[0, :m])
    for a in range(m):  # and P z from the free ones
        w.z[w.free[a]] = w.right[0, a]
    if dense:
        _add_rows(s.risk, w.free, m, w.z, w.gradient)
    else:
        _add_rows(s.loadings, w.free, m, w.z, w.common)
        for i in range(n):
            value = s.specific[i] * w.z[i]
            for t in range(k):
                value += s.loadings[i, t] * w.common[t]
            w.gradient[i] = value
    for i in range(n if tau != 0 else 0):
        w.gradient[i] += tau * w.diagonal[i] * w.z[i]
    scale = max(_largest(w.gradient), w.sizes[0])
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


@_helper
def _row_value(s, w, row, z):
    """What a row sums to now: a combination, turnover or gross exposure."""
    value = 0.0
    given = s.rows.shape[0]
    for i in range(s.linear.shape[0]):
        if row < given:
            value += s.rows[row, i] * z[i]
        elif row == given:
            value += abs(z[i] - s.trade[0, i])
        else:
            value += abs(z[i])
    return value


@_helper
def _flip(s, w, m, state, row_state, scale):
    """Correct the states that the weights or the multipliers contradict; return how many.

    Of the free weights beyond their segments only those beyond the side that is missed by more in
    total are held, as in variable fixing for the continuous knapsack (Kiwiel 2008): held on both
    sides at once, too few would stay free to meet the budget.
    """
    flipped = 0
    last = w.breaks.shape[0] - 1
    below = above = 0.0
    for a in range(m):
        i = w.free[a]
        j = state[i] // 2
        below += max(0.0, w.breaks[j, i] - w.z[i])
        above += max(0.0, w.z[i] - w.breaks[j + 1, i])
    for i in range(s.linear.shape[0]):
        tolerance = RETURN_TOLERANCE * w.diagonal[i] + ROUNDING * scale
        if last == 1 and (state[i] - 1) * w.gradient[i] <= tolerance:
            continue  # without kinks, one comparison clears most
        if state[i] % 2 == 1:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = _slopes(s, w, i, at)
        if at < w.breaks[last, i] and w.gradient[i] + right < -tolerance:
            state[i] = _neighbour(w, i, at, 1)
            flipped += 1
        elif at > w.breaks[0, i] and w.gradient[i] + left > tolerance:
            state[i] = _neighbour(w, i, at, -1)
            flipped += 1
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
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if row_state[row] != 0:
            room = FEASIBLE * (1 + abs(high if row_state[row] > 0 else low))
            if low < high and row_state[row] * w.duals[row] < -ROUNDING * scale:
                row_state[row] = 0
                flipped += 1
            elif abs(w.gaps[row]) > room:
                _free_for(s, w, state, row)
                flipped += 1
        elif low > -np.inf or high < np.inf:
            value = _row_value(s, w, row, w.z)
            if value > high + ROUNDING * 10 * (1 + abs(high)):
                row_state[row] = 1
                flipped += 1
            elif value < low - ROUNDING * 10 * (1 + abs(low)):
                row_state[row] = -1
                flipped += 1
    return flipped


@_helper
def _free_for(s, w, state, row):
    """Free the held weight that fills the gap of a row at the least cost."""
    best = np.inf
    which = -1
    direction = 0
    for i in range(s.linear.shape[0]):
        coefficient = _coefficient(s, w, row, i)
        if state[i] % 2 == 1 or coefficient == 0:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = _slopes(s, w, i, at)
        if w.gaps[row] * coefficient > 0:
            price = w.gradient[i] + right
            possible = at < w.breaks[w.breaks.shape[0] - 1, i]
            step = 1
        else:
            price = -w.gradient[i] - left
            possible = at > w.breaks[0, i]
            step = -1
        if possible and price / abs(coefficient) < best:
            best = price / abs(coefficient)
            which = i
            direction = step
    if which >= 0:
        state[which] = _neighbour(w, which, w.breaks[state[which] // 2, which], direction)


# ---- Solving ------------------------------------------------------------------------------------


@_helper
def _bend(s, w, i, z, turnover, gross):
    """Optimum of a weight with kinks, whose optimum without them is z; and whether it moves with
    z. Lift it by the widths of both, then let each kink, ascending, take its own twice."""
    inverse = w.right[1, i]
    held = s.trade[0, i] if s.trade.shape[1] else 0.0
    trade = (s.trade[1, i] + turnover) * inverse if s.trade.shape[1] else 0.0
    short = gross * inverse
    z += trade + short
    if held <= 0:
        z = min(z, max(held, z - 2 * trade))
    z = min(z, max(0.0, z - 2 * short))
    if held > 0:
        z = min(z, max(held, z - 2 * trade))
    return z, not (z == held and trade > 0) and not (z == 0 and short > 0)


@_helper
def _spread(s, w, tau, turnover, gross):
    """Optimum for diag(P), the budget, and given multipliers of the turnover and gross limits, by
    a safeguarded Newton method on the budget's multiplier (the total falls with it, piecewise
    linearly)."""
    n = s.linear.shape[0]
    last = w.breaks.shape[0] - 1
    below, above = -np.inf, np.inf
    reach = top = bottom = 0.0
    centre, inverse = w.right[0], w.right[1]
    for i in range(n):
        inverse[i] = 1 / (w.diagonal[i] * (1 + tau))
        centre[i] = s.linear[i] * inverse[i]
        bottom += inverse[i]
        top += centre[i]
        reach = max(reach, abs(s.linear[i]), w.diagonal[i])
    dual = (top - s.limits[0, 0]) / bottom
    for _ in range(50):
        total = give = 0.0
        if last > 1:
            for i in range(n):
                z, moves = _bend(s, w, i, centre[i] - dual * inverse[i], turnover, gross)
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
        excess = total - s.limits[0, 0]
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


@_helper
def _start(s, w, state, row_state, tau):
    """States of the optimum for diag(P), the budget and, one after the other, the gross and the
    turnover limit, whose multipliers are found by bisection."""
    given = s.rows.shape[0]
    _only_equalities(s, row_state)
    multiplier = w.multipliers[:2]
    multiplier[:] = 0.0
    _spread(s, w, tau, 0.0, 0.0)
    top = 0.0
    for i in range(s.linear.shape[0]):
        top = max(top, abs(s.linear[i]), w.diagonal[i])
    for kink in range(1, -1, -1):
        row = given + kink
        limit = s.limits[1, row]
        if limit == np.inf or _row_value(s, w, row, w.z) <= limit:
            continue
        row_state[row] = 1
        low, high = 0.0, 4 * top
        for _ in range(START_HALVINGS):
            multiplier[kink] = (low + high) / 2
            _spread(s, w, tau, multiplier[0], multiplier[1])
            if _row_value(s, w, row, w.z) > limit:
                low = multiplier[kink]
            else:
                high = multiplier[kink]
    _locate(s, w, state)


@_helper
def _only_equalities(s, row_state):
    """Equalities active, all other rows slack."""
    for row in range(s.limits.shape[1]):
        row_state[row] = 1 if s.limits[0, row] == s.limits[1, row] else 0


@_helper
def _locate(s, w, state):
    """States from where the weights are."""
    last = w.breaks.shape[0] - 1
    for i in range(s.linear.shape[0]):
        j = 0
        while j < last and w.breaks[j + 1, i] <= w.z[i]:
            j += 1
        state[i] = 2 * j if j == last or w.z[i] <= w.breaks[j, i] else 2 * j + 1


@_helper
def _admit(s, w, state, row_state):
    """Make a given start one that this problem can have: nothing is held at infinity."""
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


@_helper
def _residual(s, w, m, scale):
    """Largest residual of the optimality conditions, without unit."""
    worst = 0.0
    mean = 0.0
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
    worst /= max(scale, mean)
    for row in range(s.limits.shape[1]):
        if s.limits[0, row] > -np.inf or s.limits[1, row] < np.inf:
            value = _row_value(s, w, row, w.z)
            worst = max(worst, value - s.limits[1, row], s.limits[0, row] - value)
    return worst


@_helper
def _step(s, w, state, row_state, point, m, scale, bland):
    """One step of a primal active-set method (Nocedal & Wright 2006, section 16.5).

    Walk from ``point`` (feasible) towards the optimum of the current states, until a break point
    or a row stops it, which then holds. Where nothing does, let go of the one whose multiplier is
    most wrong (under Bland's rule the first that is wrong). The objective never rises, so it ends.

    Returns the length of the step from 0 to 1, or -1 at the optimum.
    """
    n = s.linear.shape[0]
    last = w.breaks.shape[0] - 1
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
    for row in range(s.limits.shape[1]):
        low, high = s.limits[0, row], s.limits[1, row]
        if row_state[row] != 0 or (low == -np.inf and high == np.inf):
            continue
        here = _row_value(s, w, row, point)
        change = 0.0
        for a in range(m):
            p = w.free[a]
            change += _coefficient(s, w, row, p) * (w.z[p] - point[p])
        room = 10 * ROUNDING * (1 + abs(here))
        if here + change > high + room and high - here < length * change:
            length = max(0.0, (high - here) / change)
            stop, stop_state = n + row, 1
        elif here + change < low - room and here - low < -length * change:
            length = max(0.0, (low - here) / change)
            stop, stop_state = n + row, -1
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
    worst = 0.0
    which = -1
    release = 0
    for i in range(n):
        if state[i] % 2 == 1:
            continue
        at = w.breaks[state[i] // 2, i]
        left, right = _slopes(s, w, i, at)
        tolerance = RETURN_TOLERANCE * w.diagonal[i] + ROUNDING * scale
        up = -(w.gradient[i] + right) if at < w.breaks[last, i] else 0.0
        down = w.gradient[i] + left if at > w.breaks[0, i] else 0.0
        if max(up, down) > max(tolerance, worst) and not (bland and which >= 0):
            worst = max(up, down)
            which, release = i, _neighbour(w, i, at, 1 if up > down else -1)
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
    return length if which >= 0 else -1.0


@_helper
def _take_over(row, b, before, linear):
    """Write what is held at date b, h = ``before`` * growth / its sum, and add c h to q.

    What is not in assets is cash, which does not grow.
    """
    held, drift = row.held[b], row.drift[b]
    n = held.shape[0]
    total = 1.0
    for i in range(n):
        held[i] = before[i] * drift[i]
        total += held[i] - before[i]
    for i in range(n):
        held[i] /= total
        linear[i] += row.cost[b] * held[i]


@_helper
def _hand_back(row, b, before, free, u, m, incoming):
    """Add to the gradient of the weights ``before`` what comes through those held at date b.

    ``u`` is the gradient of the linear term of the m free weights of date b.
    """
    held, drift = row.held[b], row.drift[b]
    n = held.shape[0]
    total = 1.0
    for i in range(n):
        total += before[i] * (drift[i] - 1)
    along = 0.0
    for a in range(m):
        along += u[a] * held[free[a]]
    scale = row.cost[b] / total
    for i in range(n):
        incoming[i] -= scale * along * (drift[i] - 1)
    for a in range(m):
        incoming[free[a]] += scale * u[a] * drift[free[a]]


@_kernel
def solve_batch(
    batch, row, first, entries, points, states, weights, duals, rounds, residual, status
):
    """Solve every sample from the first asked for on; all but the points is written.

    Dates in a row are solved one after the other up to one that stalls, since the next depends on
    it. Returns how far it came.

    Args:
        row: a ``Row``; ``batch.linear`` becomes q + c h.
        entries: whether every entry of P is checked.
        points: (B, N) feasible weights to walk from, or (0, N) to solve by rounds.
        states: (B, N + R + 2) int8, of weights then rows, a start as well as a result; -1 in
            front for a cold start.
        weights: (B, N). duals: (B, R + 2). rounds, status: (B,) int64. residual: (B,).
    """
    n = batch.linear.shape[1]
    w = _work(batch)
    sound = True
    in_a_row = row.begins.shape[0] > 0
    for b in range(first, batch.linear.shape[0]):
        if in_a_row and not row.begins[b]:
            _take_over(row, b, weights[b - 1], batch.linear[b])
            states[b] = states[b - 1]
        s = _sample(batch, b)
        state, row_state = states[b, :n], states[b, n:]
        rounds[b] = 0
        residual[b] = np.nan
        status[b] = REFUSED
        if not _prepare(s, w):
            continue
        if entries and (b == 0 or batch.risk.shape[0] > 1):
            sound = _sound(s, w)
        if not sound:
            continue
        walking = points.shape[0] > 0
        if walking:
            w.z[:] = points[b]
            _locate(s, w, state)
            _only_equalities(s, row_state)
        elif state[0] < 0:
            _start(s, w, state, row_state, START)
        else:
            _admit(s, w, state, row_state)
        attempt = taken = waited = idle = 0
        fewest = 2**62
        status[b] = STALLED
        while True:  # the one place that solves: compiled once, a second call would double it
            tau = HOMOTOPY[attempt]
            m, scale = _solve_state(s, w, state, row_state, tau)
            rounds[b] += 1
            if m < 0:
                status[b] = INDEFINITE
                break
            if walking:
                length = _step(s, w, state, row_state, points[b], m, scale, idle > n)
                idle = 0 if length > 0 else idle + 1
                walking = length >= 0 and rounds[b] < WALK_LIMIT * states.shape[1]
                continue
            flipped = _flip(s, w, m, state, row_state, scale)
            if flipped == 0 and tau == 0:
                status[b] = SOLVED
                break
            taken += 1
            waited = 0 if flipped < fewest else waited + 1
            fewest = min(fewest, flipped)
            if flipped == 0 or waited > PATIENCE or taken == ROUND_LIMIT:
                attempt += 1
                if attempt == len(HOMOTOPY):
                    break
                if attempt == 1:
                    _start(s, w, state, row_state, HOMOTOPY[1])
                taken = waited = 0
                fewest = 2**62
        if status[b] == SOLVED:
            residual[b] = _residual(s, w, m, scale)
            for a in range(m):
                p = w.free[a]
                j = state[p] // 2
                w.z[p] = min(max(w.z[p], w.breaks[j, p]), w.breaks[j + 1, p])
            weights[b] = w.z
            duals[b] = w.duals
        elif status[b] == STALLED and in_a_row:
            return b
    return batch.linear.shape[0]


# ---- The gradient -------------------------------------------------------------------------------


@_kernel
def differentiate_batch(batch, row, states, weights, duals, incoming, out, wanted):
    """Gradients by implicit differentiation of the optimality conditions.

    With K the free block of P, C the active rows and w the incoming gradient,

        [K C'; C 0] [u; v] = [w; 0]

    gives them all: q gets u, P gets -(u z' + z u') / 2, a row's limit v, a row -(y u' + v z'), a
    held weight's break point w - P u - C'v.

    Args:
        row: a ``Row``, as ``solve_batch`` has left it.
        states, weights, duals: of the solution. incoming: (B, N) gradient of the weights; of dates
            in a row, what comes through the dates after is added to it.
        out: a ``Batch`` of zeros to add to. wanted: (3,) of risk, bounds and holdings, rows.
    """
    n = batch.linear.shape[1]
    k = batch.loadings.shape[2]
    w = _work(batch)
    through = np.empty(n)
    for b in range(batch.linear.shape[0] - 1, -1, -1):
        s = _sample(batch, b)
        d = _sample(out, b)
        state, row_state, z = states[b, :n], states[b, n:], weights[b]
        m = 0
        for i in range(n):
            if state[i] % 2 == 1:
                w.free[m] = i
                m += 1
                w.diagonal[i] = _diagonal(s, i)
            if w.breaks.shape[0] > 2:
                _set_breaks(s, w, i)
                if s.trade.shape[1]:
                    w.side[0, i] = _side(w, state[i], i, s.trade[0, i])
                if s.gross:
                    w.side[1, i] = _side(w, state[i], i, 0.0)
        size = _factorise(s, w, m, 0.0)
        u = w.right[0, :m]
        for a in range(m):
            u[a] = incoming[b, w.free[a]]
        count = _gather_rows(s, w, row_state, m)
        _solve_free(s, w, m, size, 0.0, 1 + count)
        w.gaps[:] = 0.0
        _solve_rows(w, m, count, u)
        if row.begins.shape[0] and not row.begins[b]:
            _hand_back(row, b, weights[b - 1], w.free, u, m, incoming[b - 1])
        for a in range(m):
            d.linear[w.free[a]] += u[a]
            if s.trade.shape[1]:
                d.trade[1, w.free[a]] -= w.side[0, w.free[a]] * u[a]
        for r in range(count):
            held = w.active[r]
            d.limits[1 if row_state[held] > 0 else 0, held] += w.duals[held]
            if held == s.rows.shape[0]:
                for i in range(n):
                    d.trade[0, i] += w.duals[held] * w.side[0, i]
            if held < s.rows.shape[0] and wanted[2]:
                for a in range(m):
                    d.rows[held, w.free[a]] -= duals[b, held] * u[a]
                for i in range(n):
                    d.rows[held, i] -= w.duals[held] * z[i]
        if wanted[0]:
            _risk_gradient(s, w, d, z, u, m)
        if wanted[1]:
            through[:] = 0.0
            w.common[:] = 0.0
            for a in range(m):
                p = w.free[a]
                if s.specific.shape[0] == 0:
                    for j in range(n):
                        through[j] += u[a] * s.risk[p, j]
                for t in range(k):
                    w.common[t] += u[a] * s.loadings[p, t]
            for i in range(n):
                if state[i] % 2 == 1:
                    continue
                value = incoming[b, i] - through[i]
                for t in range(k):
                    value -= s.loadings[i, t] * w.common[t]
                for r in range(count):
                    value -= w.duals[w.active[r]] * _coefficient(s, w, w.active[r], i)
                if z[i] == s.bounds[0, i]:
                    d.bounds[0, i] += value
                elif z[i] == s.bounds[1, i]:
                    d.bounds[1, i] += value
                elif s.trade.shape[1] and z[i] == s.trade[0, i]:
                    d.trade[0, i] += value


@_helper
def _risk_gradient(s, w, d, z, u, m):
    """``-(u z' + z u') / 2``, or in factor form ``-(u (F'z)' + z (F'u)')`` and ``-u z``."""
    n = s.linear.shape[0]
    k = s.loadings.shape[1]
    if s.specific.shape[0] == 0:
        for a in range(m):
            p = w.free[a]
            half = 0.5 * u[a]
            for j in range(n):
                d.risk[p, j] -= half * z[j]
        for i in range(n):
            if z[i] != 0:
                half = 0.5 * z[i]
                for a in range(m):
                    d.risk[i, w.free[a]] -= half * u[a]
        return
    held, moved = w.common, w.inner[0]
    held[:] = 0.0
    moved[:] = 0.0
    for i in range(n):
        if z[i] != 0:
            for t in range(k):
                held[t] += z[i] * s.loadings[i, t]
    for a in range(m):
        p = w.free[a]
        d.specific[p] -= u[a] * z[p]
        for t in range(k):
            moved[t] += u[a] * s.loadings[p, t]
    for a in range(m):
        for t in range(k):
            d.loadings[w.free[a], t] -= u[a] * held[t]
    for i in range(n):
        if z[i] != 0:
            for t in range(k):
                d.loadings[i, t] -= z[i] * moved[t]
