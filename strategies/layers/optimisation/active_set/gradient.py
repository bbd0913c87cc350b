"""The gradient of one sample, by implicit differentiation of the optimality conditions.

With K the free block of P, C the active rows and w the incoming gradient,

    [K C'; C 0] [u; v] = [w; 0]

gives them all: q gets u, P gets -(u z' + z u') / 2, a row's limit v, a row -(y u' + v z'), the
break point of a pinned weight w - P u - C'v.
"""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import (
    coefficient,
    diagonal_entry,
    set_breaks,
    side_of,
)
from strategies.layers.optimisation.active_set.compilation import helper
from strategies.layers.optimisation.active_set.linear_algebra import (
    factorise,
    orthonormal_rows,
    solve_free,
    with_rows,
)


@helper
def solve_for_incoming(s, w, state, row_state, incoming):
    """Write u to ``right[0]``, v to ``duals``; returns how many weights are free, rows active."""
    n = s.linear.shape[0]
    m = 0
    for i in range(n):
        if state[i] % 2 == 1:
            w.free[m] = i
            m += 1
            w.diagonal[i] = diagonal_entry(s, i)
        if w.breaks.shape[0] > 2:
            set_breaks(s, w, i)
            if s.trade.shape[1]:
                w.side[0, i] = side_of(w, state[i], i, s.trade[0, i])
            if s.gross:
                w.side[1, i] = side_of(w, state[i], i, 0.0)
    size = factorise(s, w, m)
    u = w.right[0, :m]
    for a in range(m):
        u[a] = incoming[w.free[a]] if size >= 0 else np.nan  # P is indefinite where it was not read
    count = orthonormal_rows(s, w, row_state, m)
    solve_free(s, w, m, max(size, 0), 1 + count)
    w.gaps[:] = 0.0
    with_rows(w, m, count, u)
    return m, count


@helper
def limits_gradient(s, w, d, row_state, u, m, count):
    """Of q, the limits of the active rows, and the trading terms of the free weights."""
    for a in range(m):
        d.linear[w.free[a]] += u[a]
        if s.trade.shape[1]:
            d.trade[1, w.free[a]] -= w.side[0, w.free[a]] * u[a]
    for r in range(count):
        row = w.active[r]
        d.limits[1 if row_state[row] > 0 else 0, row] += w.duals[row]
        if row == s.rows.shape[0]:
            for i in range(s.linear.shape[0]):
                d.trade[0, i] += w.duals[row] * w.side[0, i]


@helper
def rows_gradient(s, w, d, z, duals, u, m, count):
    for r in range(count):
        row = w.active[r]
        if row < s.rows.shape[0]:
            for a in range(m):
                d.rows[row, w.free[a]] -= duals[row] * u[a]
            for i in range(s.linear.shape[0]):
                d.rows[row, i] -= w.duals[row] * z[i]


@helper
def breaks_gradient(s, w, d, state, z, incoming, u, m, count):
    """Of the bounds and holdings that pin a weight."""
    n = s.linear.shape[0]
    k = s.loadings.shape[1]
    through = w.gradient
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
        value = incoming[i] - through[i]
        for t in range(k):
            value -= s.loadings[i, t] * w.common[t]
        for r in range(count):
            value -= w.duals[w.active[r]] * coefficient(s, w, w.active[r], i)
        if z[i] == s.bounds[0, i]:
            d.bounds[0, i] += value
        elif z[i] == s.bounds[1, i]:
            d.bounds[1, i] += value
        elif s.trade.shape[1] and z[i] == s.trade[0, i]:
            d.trade[0, i] += value


@helper
def risk_gradient(s, w, d, z, u, m):
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
    seen, moved = w.common, w.inner[0]
    seen[:] = 0.0
    moved[:] = 0.0
    for i in range(n):
        if z[i] != 0:
            for t in range(k):
                seen[t] += z[i] * s.loadings[i, t]
    for a in range(m):
        p = w.free[a]
        d.specific[p] -= u[a] * z[p]
        for t in range(k):
            moved[t] += u[a] * s.loadings[p, t]
    for a in range(m):
        for t in range(k):
            d.loadings[w.free[a], t] -= u[a] * seen[t]
    for i in range(n):
        if z[i] != 0:
            for t in range(k):
                d.loadings[i, t] -= z[i] * moved[t]
