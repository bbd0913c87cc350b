"""The arrays that the kernels work on: of a batch, of one sample, of consecutive dates.

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

from strategies.layers.optimisation.active_set.compilation import maker

SOLVED, STALLED, REFUSED, INDEFINITE = 0, 1, 2, 3  # how the solve of a sample ended


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
