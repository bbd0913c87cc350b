"""Compiled equilibria of the mean-field cell: forward and adjoint, sample by sample.

``Z = tanh(Z W1 + mean(Z) W2 + D) P``  for each of M samples, with D what drives it (N, H), P its
assets that trade (N,), and the matrices of the network it belongs to. A sample is computed by
itself from first to last, so that its bits do not depend on which others are in the batch, and it
costs only the steps that it needs.

Compiled at the first call, once per installation (on-disk cache).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

ROUNDER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest integer in the low bits
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
WIDTH = 16  # of the encoder's state, by default
LARGEST = 20.0  # beyond it tanh is one to the last bit
# Sums may be reordered where that cannot be told from rounding; in _tanh, where it could, not.
SUMS = {"contract", "reassoc", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _tanh(x, out, power):
    """``out = tanh(x)`` to 4e-16, as 1 - 2 / (exp(2x) + 1); a fifth of the time of libm's.

    exp(y) = 2^k exp(r), |r| <= log(2) / 2, by its Taylor series to r^12. ``power`` is work space.
    NaN stays NaN.
    """
    size = x.shape[0]
    for i in range(size):
        y = 2.0 * min(max(x[i], -LARGEST), LARGEST)
        shifted = y * LOG2_E + ROUNDER
        k = shifted - ROUNDER
        r = (y - k * LN2_HIGH) - k * LN2_LOW
        p = 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        out[i] = p * r + 1.0
        power[i] = shifted
    bits = power.view(np.int64)
    for i in range(size):
        bits[i] = (bits[i] + 1023) << 52  # 2^k
    for i in range(size):
        out[i] = 1.0 - 2.0 / (out[i] * power[i] + 1.0)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _common(state, weights, share, sums, common):
    """``common = share * (sum of the rows of state) weights``; ``sums`` is work space.

    Four rows at a time, here and below: a loop over so few columns costs more to begin than to run.
    """
    rows, width = state.shape
    whole_rows, whole = rows - rows % 4, width - width % 4
    sums[:] = 0.0
    for n in range(0, whole_rows, 4):
        for h in range(width):
            sums[h] += state[n, h] + state[n + 1, h] + state[n + 2, h] + state[n + 3, h]
    for n in range(whole_rows, rows):
        for h in range(width):
            sums[h] += state[n, h]
    common[:] = 0.0
    for k in range(0, whole, 4):
        a, b, c, d = share * sums[k], share * sums[k + 1], share * sums[k + 2], share * sums[k + 3]
        for h in range(width):
            common[h] += (
                a * weights[k, h]
                + b * weights[k + 1, h]
                + c * weights[k + 2, h]
                + d * weights[k + 3, h]
            )
    for k in range(whole, width):
        for h in range(width):
            common[h] += share * sums[k] * weights[k, h]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _add_to_rows(common, out):
    """``out += common`` in every row."""
    rows, width = out.shape
    whole = rows - rows % 4
    for n in range(0, whole, 4):
        for h in range(width):
            out[n, h] += common[h]
            out[n + 1, h] += common[h]
            out[n + 2, h] += common[h]
            out[n + 3, h] += common[h]
    for n in range(whole, rows):
        for h in range(width):
            out[n, h] += common[h]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add(x, out):
    for i in range(out.shape[0]):
        out[i] += x[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _times(x, y, out):
    for i in range(out.shape[0]):
        out[i] = x[i] * y[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _product(x, weights, out):
    """``out = x weights``; of the default width, which is known here when compiling, in 0.4 of the
    time that BLAS takes."""
    if x.shape[1] != WIDTH:
        np.dot(x, weights, out)
        return
    for n in range(x.shape[0]):
        for h in range(WIDTH):
            total = 0.0
            for k in range(WIDTH):
                total += x[n, k] * weights[k, h]
            out[n, h] = total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _squares(x):
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * x[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _gap_squares(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += (x[i] - y[i]) * (x[i] - y[i])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _inner(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * y[i]
    return total


class Mixing(NamedTuple):
    """What Anderson mixing remembers of a sample, and room to compute; memory 0 is the plain step.

    The same numbers as ``_AndersonStep`` of solvers.py.
    """

    images: np.ndarray  # (memory, D) the last f(z)
    gaps: np.ndarray  # (memory, D) the last f(z) - z
    gram: np.ndarray  # (memory, memory) inner products of the gaps
    factor: np.ndarray  # (memory, memory) Cholesky factor of their correlations
    scale: np.ndarray  # (memory,) one over the norm of each gap
    weights: np.ndarray  # (memory,)


@njit(cache=True, nogil=True, error_model="numpy")
def _mixing(memory, size):
    return Mixing(
        np.empty((memory, size)),
        np.empty((memory, size)),
        np.empty((memory, memory)),
        np.empty((memory, memory)),
        np.empty(memory),
        np.empty(memory),
    )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _keep(m, count, state, image):
    """Remember an evaluation, the count-th from 1 on; the norm of its gap."""
    memory = m.images.shape[0]
    slot = (count - 1) % memory
    own_image, own_gap = m.images[slot], m.gaps[slot]
    for i in range(state.shape[0]):
        own_image[i] = image[i]
        own_gap[i] = image[i] - state[i]
    for j in range(min(count, memory)):
        m.gram[slot, j] = m.gram[j, slot] = _inner(m.gaps[j], own_gap)
    return math.sqrt(m.gram[slot, slot])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _mix(m, count, ridge, out):
    """Write ``sum_i w_i f(z_i)`` with the weights, of sum one, that make the gap smallest."""
    memory, size = m.images.shape
    slot, used = (count - 1) % memory, min(count, memory)
    for i in range(used):
        m.scale[i] = 1.0 / math.sqrt(max(m.gram[i, i], 1e-300))
    sound = True
    for i in range(used):
        for j in range(i + 1):
            value = m.gram[i, j] * m.scale[i] * m.scale[j] + (ridge if i == j else 0.0)
            for k in range(j):
                value -= m.factor[i, k] * m.factor[j, k]
            if i > j:
                m.factor[i, j] = value / m.factor[j, j]
            elif value > 0.0:
                m.factor[i, i] = math.sqrt(value)
            else:
                sound, m.factor[i, i] = False, 1.0
    for i in range(used):
        value = m.scale[i]
        for k in range(i):
            value -= m.factor[i, k] * m.weights[k]
        m.weights[i] = value / m.factor[i, i]
    total = 0.0
    for i in range(used - 1, -1, -1):
        value = m.weights[i]
        for k in range(i + 1, used):
            value -= m.factor[k, i] * m.weights[k]
        m.weights[i] = value / m.factor[i, i]
        total += m.scale[i] * m.weights[i]
    if not sound:  # gaps parallel to the last digit
        out[:] = m.images[slot]
        return
    out[:] = 0.0
    for i in range(used):
        weight, image = m.scale[i] * m.weights[i] / total, m.images[i]
        for d in range(size):
            out[d] += weight * image[d]


@njit(cache=True, nogil=True, error_model="numpy")
def solve_equilibria(W1, W2, owner, drive, present, limits, value, residual, midway, steps):
    """The equilibria from zero, as `Picard` or `Anderson` finds them.

    Args:
        W1, W2: (S, H, H) of S networks. owner: (M,) which network a sample belongs to.
        drive: (M, N, H). present: (M, N), 1 or 0.
        limits: (rtol, atol / rtol, most steps, and memory, ridge and onset of Anderson, or zeros).
        value, residual, midway, steps: (M, N, H) and (M,), written: as in ``Solution``, and the
            residual after half of the steps allowed.
    """
    rtol, floor, most, memory, ridge, onset = limits
    samples, assets, hidden = drive.shape
    state, image = np.empty((assets, hidden)), np.empty((assets, hidden))
    inner = np.empty((assets, hidden))  # not the image itself: a loop in place is not vectorised
    flat, inner_flat, image_flat = state.reshape(-1), inner.reshape(-1), image.reshape(-1)
    power, sums, common = np.empty(assets * hidden), np.empty(hidden), np.empty(hidden)
    mixing = _mixing(memory, assets * hidden)
    for b in range(samples):
        w1, w2, own, here = W1[owner[b]], W2[owner[b]], drive[b].reshape(-1), present[b]
        share = 1.0 / max(here.sum(), 1.0)
        flat[:] = 0.0
        relative, count = 0.0, 0
        before, plain, slow, kept = np.inf, False, onset == 0.0, 0
        while True:
            count += 1
            _common(state, w2, share, sums, common)
            _product(state, w1, inner)
            _add_to_rows(common, inner)
            _add(own, inner_flat)
            _tanh(inner_flat, image_flat, power)
            for n in range(assets):
                if here[n] == 0.0:
                    image[n] = 0.0
            size = math.sqrt(_squares(image_flat)) + floor
            if kept or (memory and slow):
                kept += 1
                gap = _keep(mixing, kept, flat, image_flat)
            else:
                gap = math.sqrt(_gap_squares(image_flat, flat))
            relative = gap / max(size, 1e-300)
            if count == most // 2:
                midway[b] = relative
            if not relative > rtol or count == most:  # NaN is done as well
                break
            slow = gap > onset * before
            plain = kept > 1 and gap >= before and not plain
            before = gap
            if plain:  # the mixed iterate was worth nothing: the plain one before it
                flat[:] = mixing.images[(kept - 2) % memory]
            elif kept > 0:
                _mix(mixing, kept, ridge, flat)
            else:
                flat[:] = image_flat
        value[b], residual[b], steps[b] = state, relative, count


@njit(cache=True, nogil=True, error_model="numpy")
def solve_adjoints(V1, V2, owner, value, present, given, limits, found, residual, midway, steps):
    """``t = slope * g``, where ``g = given + t W1' + share (sum of the rows of t) W2'``.

    The slope is that of tanh where the asset trades; t is the gradient of the drive. The plain
    iteration is the series of its differences, whose first term is ``given``.

    Args:
        V1, V2: (S, H, H), the transposes of W1 and W2, contiguous.
        value: (M, N, H) the equilibria. given: (M, N, H) the gradient of a loss there.
        found: (M, N, H), written: t. Others as in ``solve_equilibria``.
    """
    rtol, _, most, memory, ridge, onset = limits
    samples, assets, hidden = value.shape
    term, pulled = np.empty((assets, hidden)), np.empty((assets, hidden))
    slope, total = np.empty(assets * hidden), np.empty(assets * hidden)
    term_flat, flat = term.reshape(-1), pulled.reshape(-1)
    sums, common = np.empty(hidden), np.empty(hidden)
    mixing = _mixing(memory, assets * hidden)
    for b in range(samples):
        v1, v2, z, here = V1[owner[b]], V2[owner[b]], value[b], present[b]
        share = 1.0 / max(here.sum(), 1.0)
        for n in range(assets):
            for h in range(hidden):
                slope[n * hidden + h] = (1.0 - z[n, h] * z[n, h]) * here[n]
        start = given[b].reshape(-1)
        flat[:] = start
        total[:] = flat  # the partial sum; with a memory, the iterate
        relative, count = 0.0, 0
        before, plain, slow, kept = np.inf, False, onset == 0.0, 0
        while True:
            count += 1
            _times(slope, total if memory else flat, term_flat)
            _common(term, v2, share, sums, common)
            _product(term, v1, pulled)
            _add_to_rows(common, pulled)
            if memory:
                _add(start, flat)
                size = math.sqrt(_squares(flat))
                if kept or slow:
                    kept += 1
                    gap = _keep(mixing, kept, total, flat)
                else:
                    gap = math.sqrt(_gap_squares(flat, total))
            else:
                gap, size = math.sqrt(_squares(flat)), math.sqrt(_squares(total))
            relative = gap / max(size, 1e-300)
            if count == most // 2:
                midway[b] = relative
            if not relative > rtol or count == most:
                break
            slow = gap > onset * before
            plain = kept > 1 and gap >= before and not plain
            before = gap
            if plain:
                total[:] = mixing.images[(kept - 2) % memory]
            elif kept > 0:
                _mix(mixing, kept, ridge, total)
            elif memory:
                total[:] = flat
            else:
                _add(flat, total)
        _times(slope, total, found[b].reshape(-1))
        residual[b], steps[b] = relative, count
