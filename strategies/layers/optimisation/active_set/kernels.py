"""The two kernels that Python calls: solve a batch, differentiate at its solution.

One sample after the other, no n^3 work. They are safe in threads (they release the GIL) and after
a fork.
"""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import (
    INDEFINITE,
    REFUSED,
    SOLVED,
    STALLED,
    Batch,
    Chain,
    room_for,
    sample_of,
)
from strategies.layers.optimisation.active_set.chain import carry_back, carry_over
from strategies.layers.optimisation.active_set.compilation import entry, helper
from strategies.layers.optimisation.active_set.gradient import (
    breaks_gradient,
    limits_gradient,
    risk_gradient,
    rows_gradient,
    solve_for_incoming,
)
from strategies.layers.optimisation.active_set.one_problem import entries_sound, prepare
from strategies.layers.optimisation.active_set.rounds import (
    clip_free,
    flip,
    let_go_of_weak,
    residual_of,
    solve_state,
)
from strategies.layers.optimisation.active_set.start import (
    admit,
    cold_start,
)
from strategies.layers.optimisation.active_set.tolerances import (
    EXACT,
    HOMOTOPY,
    PATIENCE,
    ROUND_LIMIT,
    START,
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


@helper
def copy(source, out):
    """In place of ``out[:] = source``, whose error message alone takes two seconds to compile."""
    for i in range(len(out)):
        out[i] = source[i]


@helper
def solve_sample(s, w, state, row_state):
    """States without a contradiction; status, rounds, free weights, scale of the gradient.

    From the given states, or cold. Where the rounds cycle, cold again on P + tau diag(P),
    which is led back to P.
    """
    cold = state[0] < 0
    if not cold:
        admit(s, w, state, row_state)
    attempt = taken = waited = rounds = 0
    fewest = 2**62
    while True:  # the one place that starts and solves: inlined once
        tau = HOMOTOPY[attempt]
        if cold:
            cold_start(s, w, state, row_state, START if attempt == 0 else tau)
            cold = False
        m, scale = solve_state(s, w, state, row_state, tau)
        rounds += 1
        if m < 0:
            return INDEFINITE, rounds, m, scale
        flipped = flip(s, w, m, state, row_state, scale)
        if flipped == 0 and tau == 0:
            return SOLVED, rounds, m, scale
        taken += 1
        waited = 0 if flipped < fewest else waited + 1
        fewest = min(fewest, flipped)
        if flipped == 0 or waited > PATIENCE or taken == ROUND_LIMIT:
            attempt += 1
            if attempt == len(HOMOTOPY):
                return STALLED, rounds, m, scale
            cold = attempt == 1
            taken = waited = 0
            fewest = 2**62


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
