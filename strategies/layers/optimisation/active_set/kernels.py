"""The two kernels that Python calls: solve a batch, differentiate at its solution.

One sample after the other, no n^3 work. They are safe in threads (they release the GIL) and after
a fork.

On consecutive dates, the weights of one become the holdings h that the next trades from,

    h = w g / (sum w g + cash + carry),   cash = 1 - sum w

with g the growth of prices and the carry that of ``strategies/layers/drift.py``: interest on cash,
less that on borrowed cash and the fee of short positions.
"""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import (
    CLIMB_LIMIT,
    EXACT,
    INDEFINITE,
    PATIENCE,
    REFINED,
    REFINEMENTS,
    REFUSED,
    ROUND_LIMIT,
    SOLVED,
    STALLED,
    Batch,
    Chain,
    copy,
    entries_sound,
    prepare,
    room_for,
    sample_of,
)
from strategies.layers.optimisation.active_set.compilation import entry, helper
from strategies.layers.optimisation.active_set.dual import (
    climb,
    drop_rows,
    pin_what_is_missed_most,
    remember,
)
from strategies.layers.optimisation.active_set.gradient import (
    breaks_gradient,
    limits_gradient,
    risk_gradient,
    rows_gradient,
    solve_for_incoming,
)
from strategies.layers.optimisation.active_set.rounds import (
    clip_free,
    flip_free,
    flip_pinned,
    flip_rows,
    free_residual,
    let_go_of_weak,
    residual_of,
    solve_state,
)
from strategies.layers.optimisation.active_set.start import (
    admit,
    cold_start,
)

__all__ = [
    "INDEFINITE",
    "REFUSED",
    "SOLVED",
    "STALLED",
    "Batch",
    "Chain",
    "differentiate_batch",
    "solve_batch",
]


PRIMAL_DUAL, LET_GO, CLIMB = 0, 1, 2  # phases of a solve


@helper
def solve_sample(s, w, state, row_state):
    """States without a contradiction; status, rounds, free weights, scale of the gradient.

    From the given states, or cold. Where the rounds cycle, by the dual method from where they are:
    what has a wrong multiplier is let go, then it climbs.
    """
    if state[0] < 0:
        cold_start(s, w, state, row_state)
    else:
        admit(s, w, state, row_state)
    phase = PRIMAL_DUAL
    refined = waited = rounds = 0
    fewest = 2**62
    while True:  # the one place that solves: inlined once
        m, scale = solve_state(s, w, state, row_state, refined > 0)
        rounds += 1
        if m < 0:
            return INDEFINITE, rounds, m, scale
        if refined < REFINEMENTS and free_residual(s, w, m, scale) > REFINED:
            refined += 1
            continue
        refined = 0
        if phase == CLIMB:
            let_go = climb(s, w, state, row_state, scale)
            if let_go < 0 or rounds > CLIMB_LIMIT + s.linear.shape[0] + s.limits.shape[1]:
                return STALLED, rounds, m, scale
            solved = let_go == 0
        else:
            flipped = flip_pinned(s, w, state, scale)
            if phase == PRIMAL_DUAL:
                flipped += flip_free(w, m, state)
                flipped += flip_rows(s, w, state, row_state, scale)
                solved = flipped == 0
                waited = 0 if flipped < fewest else waited + 1
                fewest = min(fewest, flipped)
                if not solved and (waited > PATIENCE or rounds >= ROUND_LIMIT):
                    phase = LET_GO
            else:
                solved = flipped + drop_rows(s, w, row_state, scale) == 0
                if solved:
                    remember(w)
                    phase = CLIMB
        if solved and not (
            phase == CLIMB and pin_what_is_missed_most(s, w, m, state, row_state, rounds)
        ):
            return SOLVED, rounds, m, scale


@helper
def cash_of(weights):
    cash = 1.0
    for i in range(weights.shape[0]):
        cash -= weights[i]
    return cash


@helper
def grown_total(chain, b, before):
    """What a portfolio of 1 is worth at date b, held at the weights ``before`` until then."""
    growth, rates = chain.growth[b], chain.rates[b]
    total, short = 1.0, 0.0
    for i in range(before.shape[0]):
        total += before[i] * growth[i] - before[i]
        short += min(before[i], 0.0)
    cash = cash_of(before)
    return total + rates[0] * max(cash, 0.0) + rates[1] * min(cash, 0.0) + rates[2] * short


@helper
def carry_over(chain, b, before, linear, trade):
    """Write the holdings h of date b, from the weights ``before`` it, and add c h to q."""
    holdings, growth = chain.holdings[b], chain.growth[b]
    total = grown_total(chain, b, before)
    for i in range(before.shape[0]):
        holdings[i] = before[i] * growth[i] / total
        linear[i] += chain.cost[b] * holdings[i]
    for i in range(trade.shape[1]):
        trade[0, i] = holdings[i]


@helper
def carry_back(chain, b, before, of_linear, of_trade, incoming):
    """Add to the gradient of the weights ``before`` what comes through the holdings of date b.

    ``of_linear`` is the gradient of the linear term of date b, ``of_trade`` that of the holdings
    that its turnover terms know, and of their cost.
    """
    holdings, growth, rates = chain.holdings[b], chain.growth[b], chain.rates[b]
    total, cost = grown_total(chain, b, before), chain.cost[b]
    kinks = of_trade.shape[1] > 0
    along = 0.0
    for i in range(before.shape[0]):
        along += (cost * of_linear[i] + (of_trade[0, i] if kinks else 0.0)) * holdings[i]
    interest = rates[0] if cash_of(before) > 0 else rates[1]
    for i in range(before.shape[0]):
        slope = growth[i] - 1 - interest + (rates[2] if before[i] < 0 else 0.0)
        of_holding = cost * of_linear[i] + (of_trade[0, i] if kinks else 0.0)
        incoming[i] += (of_holding * growth[i] - along * slope) / total


@entry
def solve_batch(sources):
    def solve_batch(batch, chain, first, entries, states, weights, duals, rounds, residual, status):
        """Solve every sample from the first asked for on; what follows ``entries`` is written.

        Consecutive dates are solved one after the other up to one that fails, since the next
        depends on it. Returns how far it came.

        Args:
            chain: a ``Chain``; ``batch.linear`` becomes q + c h, and ``batch.trade`` has h.
            entries: whether every entry of P is checked.
            states: (B, N + R + 2) int8, of weights then rows, a start as well as a result; -1 in
                front for a cold start.
            weights: (B, N). duals: (B, R + 2). rounds, status: (B,) int64. residual: (B,).
        """
        assert sources
        n = batch.linear.shape[1]
        w = room_for(batch)
        sound = True
        consecutive = chain.begins.shape[0] > 0
        for b in range(first, batch.linear.shape[0]):
            if consecutive and not chain.begins[b]:
                trade = batch.trade[b % batch.trade.shape[0]]
                carry_over(chain, b, weights[b - 1], batch.linear[b], trade)
                copy(states[b - 1], states[b])
            s = sample_of(batch, b)
            state, row_state = states[b, :n], states[b, n:]
            rounds[b] = 0
            residual[b] = np.nan
            status[b] = REFUSED
            if not prepare(s, w):
                continue
            if entries and (b == 0 or batch.risk.shape[0] > 1):
                sound = entries_sound(s, w)
            if not sound:
                continue
            status[b], rounds[b], m, scale = solve_sample(s, w, state, row_state)
            if status[b] == SOLVED:
                residual[b] = residual_of(s, w, m, scale)
                clip_free(w, state, m)
                let_go_of_weak(s, w, state, row_state, scale)
                copy(w.z, weights[b])
                copy(w.duals, duals[b])
                if residual[b] > EXACT:
                    status[b] = STALLED
            if status[b] != SOLVED and consecutive:
                return b
        return batch.linear.shape[0]

    return solve_batch


@entry
def differentiate_batch(sources):
    def differentiate_batch(batch, chain, states, weights, duals, incoming, out, wanted):
        """Add the gradients at a solution to ``out``; see ``gradient.py``.

        Args:
            chain: a ``Chain``, as ``solve_batch`` has left it.
            states, weights, duals: of the solution. incoming: (B, N) gradient of the weights; of
                consecutive dates, what comes through the dates after is added to it.
            out: a ``Batch`` of zeros. wanted: (3,) of risk, bounds and holdings, rows.
        """
        assert sources
        n = batch.linear.shape[1]
        w = room_for(batch)
        for b in range(batch.linear.shape[0] - 1, -1, -1):
            s = sample_of(batch, b)
            d = sample_of(out, b)
            state, row_state, z = states[b, :n], states[b, n:], weights[b]
            m, count = solve_for_incoming(s, w, state, row_state, incoming[b])
            u = w.right[0, :m]
            limits_gradient(s, w, d, row_state, u, m, count)
            if wanted[2]:
                rows_gradient(s, w, d, z, duals[b], u, m, count)
            if wanted[1]:
                breaks_gradient(s, w, d, state, z, incoming[b], u, m, count)
            if chain.begins.shape[0] and not chain.begins[b]:
                carry_back(chain, b, weights[b - 1], d.linear, d.trade, incoming[b - 1])
            if wanted[0]:
                risk_gradient(s, w, d, z, u, m)

    return differentiate_batch
