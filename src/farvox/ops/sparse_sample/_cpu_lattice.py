"""Free points that are whole voxels apart, such as the voxels of part of a scan, read in runs along the last axis.

As on a regular grid (README), an offset has one set of eight weights for all of them, and what neighbours read lies
side by side in memory: no index arithmetic for each point, and SIMD lanes from end to end of a run.
"""

from __future__ import annotations

import numpy as np

from farvox.ops.jit import kernel
from farvox.types import Array, FloatArray, IntArray

_ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""How far a normalised coordinate may be off its place, as single precision rounds it."""
_LEAST_LENGTH = 3
"""Points of a run, in the mean, from which runs are faster than points one by one."""
_LANES = 16
"""Points that runs are filled up to, so that they are read by whole registers."""


def find_runs(places: FloatArray, sizes: IntArray) -> IntArray | None:
    """Points (T, 3), voxels, as runs of neighbours along k.

    Returns:
        (N, 4) first voxel along i, j and k, counted from the first point, and number of points; None where the points
        are not whole voxels apart, or runs are short.
    """
    if not len(places):
        return None
    with np.errstate(invalid="ignore"):
        away = places - places[0]
    cells = np.rint(away)
    if not (np.abs(away - cells) <= _ROUNDING * sizes).all():  # NaN is none, either
        return None
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(cells, axis=0) != (0, 0, 1)).any(1))))
    if len(places) < _LEAST_LENGTH * len(starts):
        return None
    lengths = np.diff(starts, append=len(places))
    return np.concatenate((cells[starts], lengths[:, None]), 1).astype(np.int64)


def sample_runs(
    flat: Array, sizes: IntArray, origin: FloatArray, runs: IntArray, offsets: FloatArray, reads: int, out: FloatArray
) -> None:
    """As `sample_points` of an image (C, i, j, k) in this order, with offsets (3, reads · K) and out (C, K, T).

    Args:
        flat: The image.
        sizes: Its i, j and k.
        origin: (3,) place of the first point, voxels.
        runs: As from `find_runs`.
        offsets: Voxels; what is NaN or beyond any image reads zero.
        reads: 1, or 2 for pairs.
        out: Filled.
    """
    places = origin[:, None] + offsets
    with np.errstate(invalid="ignore"):
        places = np.where(np.abs(places) < 1e6, places, np.float32(-1e6))
    low = np.floor(places)
    # Offsets that meet neighbouring planes one after the other.
    order = np.argsort(low[0].reshape(reads, -1), axis=1, kind="stable")
    _sample(flat, sizes, runs, low.astype(np.int64), places - low, order, out)


@kernel
def _sample(flat, sizes, runs, low, frac, order, out):
    """low, frac: (3, R) lower voxel of each read from the origin, and distance from it. order: (reads, K).

    All in one function and without views of arrays: handing an array on takes longer than reading a short run. Indices
    are unsigned, which spares the test for those that count from the end.
    """
    channels, half, count = out.shape
    size_i, size_j, size_k = sizes[0], sizes[1], sizes[2]
    one, zero = np.float32(1), np.float32(0)
    row = np.zeros(count + _LANES, np.float32)
    for channel in range(channels):
        for part in range(len(order)):
            for k in order[part]:
                r = part * half + k
                fi, fj, fk = frac[0, r], frac[1, r], frac[2, r]
                first = 0
                for n in range(len(runs)):
                    length = runs[n, 3]
                    i, j, start = runs[n, 0] + low[0, r], runs[n, 1] + low[1, r], runs[n, 2] + low[2, r]
                    # Points whose corners along k both lie in the image.
                    begin = min(length, max(0, -start))
                    end = max(begin, min(length, size_k - 1 - start))
                    i0, i1, j0, j1 = one - fi, fi, one - fj, fj
                    next_i, next_j = size_j * size_k, size_k
                    if i < 0 or j < 0 or i + 1 >= size_i or j + 1 >= size_j:
                        # A corner outside weighs nothing, and a voxel inside is read for it.
                        i0, i1 = i0 if 0 <= i < size_i else zero, i1 if -1 <= i < size_i - 1 else zero
                        j0, j1 = j0 if 0 <= j < size_j else zero, j1 if -1 <= j < size_j - 1 else zero
                        next_i, next_j = next_i if 0 <= i < size_i - 1 else 0, next_j if 0 <= j < size_j - 1 else 0
                        i, j = min(max(i, 0), size_i - 1), min(max(j, 0), size_j - 1)
                    base = ((channel * size_i + i) * size_j + j) * size_k
                    wa, wb, wc, wd = i0 * j0, i0 * j1, i1 * j0, i1 * j1
                    if end > begin:
                        x, at = base + start + begin, np.uint64(first + begin)
                        lanes = -(-(end - begin) // _LANES) * _LANES
                        # What is too much is overwritten later, but must not lie behind the image.
                        lanes = lanes if x + next_i + next_j + lanes < len(flat) else end - begin
                        a, b = np.uint64(x), np.uint64(x + next_j)
                        c, d = np.uint64(x + next_i), np.uint64(x + next_i + next_j)
                        w0, w1, w2, w3 = wa * (one - fk), wb * (one - fk), wc * (one - fk), wd * (one - fk)
                        w4, w5, w6, w7 = wa * fk, wb * fk, wc * fk, wd * fk
                        for t in range(lanes):
                            y, z = np.uint64(t), np.uint64(t + 1)
                            near = w0 * flat[a + y] + w1 * flat[b + y] + w2 * flat[c + y] + w3 * flat[d + y]
                            far = w4 * flat[a + z] + w5 * flat[b + z] + w6 * flat[c + z] + w7 * flat[d + z]
                            row[at + y] = near + far
                    if begin > 0 or end < length:
                        for t in range(first, first + begin):
                            row[t] = zero
                        for t in range(first + end, first + length):
                            row[t] = zero
                        # A point before the others may have its upper corner in the image, one behind its lower one.
                        a, b = np.uint64(base), np.uint64(base + next_j)
                        c, d = np.uint64(base + next_i), np.uint64(base + next_i + next_j)
                        if begin > 0 and start + begin == 0:
                            row[first + begin - 1] = fk * (wa * flat[a] + wb * flat[b] + wc * flat[c] + wd * flat[d])
                        if end < length and start + end == size_k - 1:
                            y = np.uint64(size_k - 1)
                            near = wa * flat[a + y] + wb * flat[b + y] + wc * flat[c + y] + wd * flat[d + y]
                            row[first + end] = (one - fk) * near
                    first += length
                if part == 0:
                    for t in range(count):
                        out[channel, k, t] = row[t]
                else:
                    for t in range(count):
                        out[channel, k, t] -= row[t]
