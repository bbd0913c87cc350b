"""Compiled equilibria of the mean-field cell: forward and adjoint, sample by sample.

``Z = tanh(Z W1 + mean(Z) W2 + D) P``  for each of M samples, with D its drive (N, H) and P the
assets that trade (N,). Each sample is computed by itself from start to end: its result does not
depend on the other samples of the batch, and it takes only the steps that it needs.

Compiled at the first call, once per installation (on-disk cache).
"""

from __future__ import annotations

import math

import numpy as np

from data_loaders.machine import writable_cache

writable_cache()

from numba import njit  # noqa: E402 - it looks for its cache when it is imported

ROUNDER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest integer in the low bits
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
WIDTH = 16  # of the encoder's state, by default
LARGEST = 20.0  # beyond it tanh is one to the last bit
# Sums may be reordered where that cannot be told from rounding; in _tanh, where it could, not.
SUMS = {"contract", "reassoc", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy")
def solve_equilibria(W1, W2, drive, present, settings, value, residual, on_the_way, steps):
    """The equilibria from zero, as `Picard` or `Anderson` finds them.

    Args:
        W1, W2: (H, H). drive: (M, N, H). present: (M, N), 1 or 0.
        settings: rtol, atol / rtol, most steps; memory, ridge and onset of Anderson mixing. An
            infinite onset makes plain steps only.
        value, residual, on_the_way, steps: (M, N, H), (M,), (M, 2), (M,), written: as in
            ``Solution``, and the residuals after a quarter and half of the steps allowed.
    """
    samples = len(drive)
    none = np.empty(0)
    for b in range(samples):
        state = value[b].reshape(-1)
        state[:] = 0.0
        found = _iterate(state, W1, W2, drive[b].reshape(-1), none, present[b], settings)
        residual[b], on_the_way[b, 0], on_the_way[b, 1], steps[b] = found


@njit(cache=True, nogil=True, error_model="numpy")
def solve_adjoints(V1, V2, value, present, given, settings, found, residual, on_the_way, steps):
    """``t = slope * g``, where ``g = given + t W1' + share (sum of the rows of t) W2'``.

    The slope is that of tanh where the asset trades; t is the gradient of the drive.

    Args:
        V1, V2: (H, H), the transposes of W1 and W2, contiguous.
        value: (M, N, H) the equilibria. given: (M, N, H) the gradient of a loss there.
        found: (M, N, H), written: t. Others as in ``solve_equilibria``.
    """
    samples, assets, hidden = value.shape
    state, slope = np.empty(assets * hidden), np.empty(assets * hidden)
    for b in range(samples):
        z, here = value[b], present[b]
        for n in range(assets):
            for h in range(hidden):
                slope[n * hidden + h] = (1.0 - z[n, h] * z[n, h]) * here[n]
        _copy(given[b].reshape(-1), state)
        ended = _iterate(state, V1, V2, given[b].reshape(-1), slope, here, settings)
        residual[b], on_the_way[b, 0], on_the_way[b, 1], steps[b] = ended
        _times(slope, state, found[b].reshape(-1))


@njit(cache=True, nogil=True, error_model="numpy")
def _iterate(state, W1, W2, offset, slope, present, settings):
    """Take ``state`` (D,) to the fixed point; its residual, two on the way, and the steps taken.

    The map is the cell's, or its adjoint where ``slope`` is not empty. As the steps of
    fixed_point_solvers.py: plain ones until one leaves more than ``onset`` of the residual, then
    mixed ones, and where a mixed iterate does not lower the residual, the plain one before it.
    No iterate can run away: from zero this contraction stays within 20 times its first image.
    """
    rtol, floor, most, memory, ridge, onset = settings
    assets, hidden = len(present), W1.shape[0]
    image, power = np.empty(assets * hidden), np.empty(assets * hidden)
    source, inner = np.empty((assets, hidden)), np.empty((assets, hidden))
    sums, common = np.empty(hidden), np.empty(hidden)
    images, gaps = np.empty((memory, len(state))), np.empty((memory, len(state)))
    gram, room = np.empty((memory, memory)), np.empty((memory + 2, memory))
    share = 1.0 / max(present.sum(), 1.0)
    quarter, midway, before, kept, plain, slow = 0.0, 0.0, np.inf, 0, False, onset == 0.0
    for count in range(1, most + 1):
        if len(slope) > 0:
            _times(slope, state, source.reshape(-1))
            _linear(source, W1, W2, share, offset, sums, common, image.reshape(assets, hidden))
        else:
            flat = inner.reshape(-1)
            _linear(state.reshape(assets, hidden), W1, W2, share, offset, sums, common, inner)
            _tanh(flat, image, power)
            for n in range(assets):
                if present[n] == 0.0:
                    image[n * hidden : (n + 1) * hidden] = 0.0
        if kept or slow:
            kept += 1
            gap = _keep(images, gaps, gram, kept, state, image)
        else:
            gap = math.sqrt(_gap_squares(image, state))
        relative = gap / max(math.sqrt(_inner(image, image)) + floor, 1e-300)
        if count == most // 4:
            quarter = relative
        if count == most // 2:
            midway = relative
        if not relative > rtol or count == most:  # NaN is done as well
            break
        slow = gap > onset * before
        plain = kept > 1 and gap >= before and not plain
        before = gap
        if plain:
            _copy(images[(kept - 2) % memory], state)
        elif kept > 0:
            _mix(images, gram, kept, ridge, room, state)
        else:
            _copy(image, state)
    return relative, quarter, midway, count


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(source, out):
    """In place of ``out[:] = source``, whose error message alone takes two seconds to compile."""
    for i in range(len(out)):
        out[i] = source[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _linear(source, W1, W2, share, offset, sums, common, out):
    _common(source, W2, share, sums, common)
    _product(source, W1, out)
    _add_to_rows(common, out)
    _add(offset, out.reshape(-1))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _keep(images, gaps, gram, count, state, image):
    """Remember an evaluation, the count-th from 1 on; returns the norm of its gap.

    Args:
        images, gaps: (memory, D) the last f(z) and f(z) - z. gram: inner products of the gaps.
    """
    memory = images.shape[0]
    slot = (count - 1) % memory
    own_image, own_gap = images[slot], gaps[slot]
    for i in range(state.shape[0]):
        own_image[i] = image[i]
        own_gap[i] = image[i] - state[i]
    for j in range(min(count, memory)):
        gram[slot, j] = gram[j, slot] = _inner(gaps[j], own_gap)
    return math.sqrt(gram[slot, slot])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _mix(images, gram, count, ridge, room, out):
    """Write ``sum_i w_i f(z_i)`` with the weights, of sum one, that make the gap smallest.

    The same numbers as ``_AndersonStep`` of fixed_point_solvers.py; ``room`` is work space.
    """
    memory, size = images.shape
    factor, scale, weights = room[:memory], room[memory], room[memory + 1]
    slot, used = (count - 1) % memory, min(count, memory)
    for i in range(used):
        scale[i] = 1.0 / math.sqrt(max(gram[i, i], 1e-300))
    sound = True
    for i in range(used):
        for j in range(i + 1):
            value = gram[i, j] * scale[i] * scale[j] + (ridge if i == j else 0.0)
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            if i > j:
                factor[i, j] = value / factor[j, j]
            elif value > 0.0:
                factor[i, i] = math.sqrt(value)
            else:
                sound, factor[i, i] = False, 1.0
    for i in range(used):
        value = scale[i]
        for k in range(i):
            value -= factor[i, k] * weights[k]
        weights[i] = value / factor[i, i]
    total = 0.0
    for i in range(used - 1, -1, -1):
        value = weights[i]
        for k in range(i + 1, used):
            value -= factor[k, i] * weights[k]
        weights[i] = value / factor[i, i]
        total += scale[i] * weights[i]
    if not sound:  # gaps parallel to the last digit
        _copy(images[slot], out)
        return
    out[:] = 0.0
    for i in range(used):
        weight, own = scale[i] * weights[i] / total, images[i]
        for d in range(size):
            out[d] += weight * own[d]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _common(state, weights, share, sums, common):
    """``common = share * (sum of the rows of state) weights``; ``sums`` is work space."""
    rows, width = state.shape
    sums[:] = 0.0
    for n in range(rows):
        for h in range(width):
            sums[h] += state[n, h]
    common[:] = 0.0
    for k in range(width):
        for h in range(width):
            common[h] += share * sums[k] * weights[k, h]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _add_to_rows(common, out):
    """``out += common`` in every row."""
    rows, width = out.shape
    for n in range(rows):
        for h in range(width):
            out[n, h] += common[h]


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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add(x, out):
    for i in range(out.shape[0]):
        out[i] += x[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _times(x, y, out):
    for i in range(out.shape[0]):
        out[i] = x[i] * y[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _inner(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * y[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _gap_squares(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += (x[i] - y[i]) * (x[i] - y[i])
    return total


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
