"""Linear algebra on the free weights: ``K x + C'y = right, C x = gaps``, K the free block of P."""

from __future__ import annotations

import numpy as np

from strategies.layers.optimisation.active_set.arrays import DEPENDENT_ROW, coefficient
from strategies.layers.optimisation.active_set.compilation import helper


@helper
def cholesky(a, n):
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


@helper
def substitute(a, n, x, count):
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


@helper
def factorise(s, w, m):
    """Cholesky factor of the m free weights' block of P, or by Woodbury of ``I + F'D^-1 F`` where
    that is smaller. Returns its size, -1 if P is not positive definite."""
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
            a[i, i] = w.diagonal[p]
        return m if cholesky(a, m) else -1
    a = w.matrix[: k * k].reshape(k, k)
    a[:] = 0.0
    for i in range(m):
        p = w.free[i]
        weight = 1 / s.specific[p]
        for t in range(k):
            value = s.loadings[p, t] * weight
            for u in range(t + 1):
                a[t, u] += value * s.loadings[p, u]
    for t in range(k):
        a[t, t] += 1
    return k if cholesky(a, k) else -1


@helper
def solve_free(s, w, m, size, count):
    """Multiply the first ``count`` rows of ``right`` by the inverse of the free block."""
    a = w.matrix[: size * size].reshape(size, size)
    x = w.right
    if s.specific.shape[0] == 0 or m <= s.loadings.shape[1]:
        substitute(a, m, x, count)
        return
    inner = w.inner
    inner[:] = 0.0
    for i in range(m):
        p = w.free[i]
        for r in range(count):
            x[r, i] /= s.specific[p]
            for t in range(size):
                inner[r, t] += s.loadings[p, t] * x[r, i]
    substitute(a, size, inner, count)
    for i in range(m):
        p = w.free[i]
        for r in range(count):
            value = 0.0
            for t in range(size):
                value += s.loadings[p, t] * inner[r, t]
            x[r, i] -= value / s.specific[p]


@helper
def orthonormal_rows(s, w, row_state, m):
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
            q[a] = coefficient(s, w, row, w.free[a])
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
        if norm <= DEPENDENT_ROW * np.sqrt(before):
            norm = 0.0
        w.triangle[count, count] = norm
        for a in range(m):
            q[a] = q[a] / norm if norm > 0 else 0.0
            w.right[1 + count, a] = q[a]
        count += 1
    return count


@helper
def with_rows(w, m, count, x):
    """Multipliers y and, in x (m,), the solution of ``K x + C'y = right, C x = gaps``.

    On entry x holds K^-1 right and ``right`` after its first K^-1 Q'. A dependent row gets no
    multiplier and does not bind x; how far it is missed, and zero for all others, is in ``gaps``
    afterwards. y is in ``duals[active]``.
    """
    schur, step, y = w.schur, w.step, w.duals
    for r in range(count):
        gap = w.gaps[w.active[r]]
        for c in range(r):
            gap -= w.triangle[r, c] * w.targets[c]
        bound = w.triangle[r, r] > 0
        w.targets[r] = gap / w.triangle[r, r] if bound else 0.0  # what row r of Q is to sum to
        w.gaps[w.active[r]] = 0.0 if bound else gap
        for c in range(r + 1):
            value = 0.0 if bound or c < r else 1.0
            for i in range(m):
                value += w.coefficients[r, i] * w.right[1 + c, i]
            schur[r, c] = value
    regular = cholesky(schur, count)
    w.multipliers[:count] = 0.0
    for _ in range(2 if regular else 0):  # again, so that rows hold to rounding if x starts large
        for r in range(count):
            value = -w.targets[r]
            for i in range(m):
                value += w.coefficients[r, i] * x[i]
            step[0, r] = value
        substitute(schur, count, step, 1)
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


@helper
def add_rows(matrix, index, count, z, total):
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
