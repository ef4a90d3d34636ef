"""Free points that are whole voxels apart, such as every voxel of part of a scan or every fourth, read in runs.

As on a regular grid (README), an offset has one set of eight weights for all of them. A run goes along the last axis by
whole steps; with as many phases of the image as a step has voxels, what neighbours read lies side by side in memory: no
index arithmetic for each point, and SIMD lanes from end to end of a run.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from farvox.ops.jit import kernel
from farvox.types import Array, FloatArray, IntArray

_ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""How far a normalised coordinate may be off its place, as single precision rounds it."""
_LEAST_LENGTH = 3
"""Points of a run, in the mean, from which runs are faster than points one by one."""
_LANES = 16
"""Points that runs are filled up to, so that they are read by whole registers."""
_LARGEST_STEP = 4


def find_step(places: FloatArray, sizes: IntArray) -> int:
    """Voxels from point to point (T, 3), voxels, of the runs they make; 0 where they make none that are worth it."""
    if len(places) < 2:
        return 0
    with np.errstate(invalid="ignore"):
        apart = np.diff(places, axis=0)
    along = (apart[:, :2] == 0).all(1) & (apart[:, 2] > 0.5) & (apart[:, 2] < _LARGEST_STEP + 0.5)
    step = round(float(apart[along, 2].min())) if along.any() else 0
    return step if step and find_runs(places, sizes, step) is not None else 0


def find_runs(places: FloatArray, sizes: IntArray, step: int) -> IntArray | None:
    """Points (T, 3), voxels, as runs along k with `step` voxels from point to point.

    Returns:
        (N, 4) first voxel along i, j and k, counted from the first point, and number of points; None where the points
        are not whole voxels apart, or runs are short.
    """
    with np.errstate(invalid="ignore"):
        away = places - places[0]
    cells = np.rint(away)
    if not (np.abs(away - cells) <= _ROUNDING * sizes).all():  # NaN is none, either
        return None
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(cells, axis=0) != (0, 0, step)).any(1))))
    if len(places) < _LEAST_LENGTH * len(starts):
        return None
    lengths = np.diff(starts, append=len(places))
    return np.concatenate((cells[starts], lengths[:, None]), 1).astype(np.int64)


def in_phases(image: torch.Tensor, step: int) -> Array:
    """(C, i, j, k) → flat (C, i, j, phase, k / step), zeros behind the last k where it does not divide."""
    if step > 1:
        image = F.pad(image, (0, -image.shape[3] % step)).unflatten(3, (-1, step)).movedim(4, 3)
    flat: Array = image.contiguous().view(-1).numpy()
    return flat


def sample_runs(
    flat: Array,
    sizes: IntArray,
    step: int,
    origin: FloatArray,
    runs: IntArray,
    offsets: FloatArray,
    reads: int,
    out: FloatArray,
) -> None:
    """As `sample_points`, out (C, K, T).

    Args:
        flat: The image, as from `in_phases`.
        sizes: Its i, j and k.
        step: Voxels from point to point of a run.
        origin: (3,) place of the first point, voxels.
        runs: As from `find_runs`.
        offsets: (3, reads · K) voxels; what is NaN or beyond any image reads zero.
        reads: 1, or 2 for pairs.
        out: Filled.
    """
    places = origin[:, None] + offsets
    with np.errstate(invalid="ignore"):
        places = np.where(np.abs(places) < 1e6, places, np.float32(-1e6))
    low = np.floor(places)
    # Offsets that meet neighbouring planes one after the other.
    order = np.argsort(low[0].reshape(reads, -1), axis=1, kind="stable")
    _sample(flat, sizes, step, runs, low.astype(np.int64), places - low, order, out)


@kernel
def _sample(flat, sizes, step, runs, low, frac, order, out):
    """low, frac: (3, R) lower voxel of each read from the origin, and distance from it. order: (reads, K).

    All in one function and without views of arrays: handing an array on takes longer than reading a short run. Indices
    are unsigned, which spares the test for those that count from the end.
    """
    channels, half, count = out.shape
    size_i, size_j, size_k = sizes[0], sizes[1], sizes[2]
    phase = (size_k - 1) // step + 1
    line = phase * step  # voxels along k in memory
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
                    begin, end = 0, length  # points whose corners along k both lie in the image
                    if start < 0 or start + (length - 1) * step + 1 >= size_k:
                        begin = min(length, max(0, -(start // step)))
                        end = max(begin, min(length, (size_k - 2 - start) // step + 1))
                    i0, i1, j0, j1 = one - fi, fi, one - fj, fj
                    next_i, next_j = size_j * line, line
                    if i < 0 or j < 0 or i + 1 >= size_i or j + 1 >= size_j:
                        # A corner outside weighs nothing, and a voxel inside is read for it.
                        i0, i1 = i0 if 0 <= i < size_i else zero, i1 if -1 <= i < size_i - 1 else zero
                        j0, j1 = j0 if 0 <= j < size_j else zero, j1 if -1 <= j < size_j - 1 else zero
                        next_i, next_j = next_i if 0 <= i < size_i - 1 else 0, next_j if 0 <= j < size_j - 1 else 0
                        i, j = min(max(i, 0), size_i - 1), min(max(j, 0), size_j - 1)
                    base = ((channel * size_i + i) * size_j + j) * line
                    wa, wb, wc, wd = i0 * j0, i0 * j1, i1 * j0, i1 * j1
                    if end > begin:
                        low_k, at = start + begin * step, np.uint64(first + begin)
                        x, z = base + low_k, base + low_k + 1
                        if step > 1:
                            x = base + low_k % step * phase + low_k // step
                            z = base + (low_k + 1) % step * phase + (low_k + 1) // step
                        lanes = -(-(end - begin) // _LANES) * _LANES
                        # What is too much is overwritten later, but must not lie behind the image.
                        lanes = lanes if max(x, z) + next_i + next_j + lanes <= len(flat) else end - begin
                        a, b = np.uint64(x), np.uint64(x + next_j)
                        c, d = np.uint64(x + next_i), np.uint64(x + next_i + next_j)
                        e, f = np.uint64(z), np.uint64(z + next_j)
                        g, h = np.uint64(z + next_i), np.uint64(z + next_i + next_j)
                        w0, w1, w2, w3 = wa * (one - fk), wb * (one - fk), wc * (one - fk), wd * (one - fk)
                        w4, w5, w6, w7 = wa * fk, wb * fk, wc * fk, wd * fk
                        for t in range(lanes):
                            y = np.uint64(t)
                            near = w0 * flat[a + y] + w1 * flat[b + y] + w2 * flat[c + y] + w3 * flat[d + y]
                            far = w4 * flat[e + y] + w5 * flat[f + y] + w6 * flat[g + y] + w7 * flat[h + y]
                            row[at + y] = near + far
                    if begin > 0 or end < length:
                        for t in range(first, first + begin):
                            row[t] = zero
                        for t in range(first + end, first + length):
                            row[t] = zero
                        # A point before the others may have its upper corner in the image, one behind its lower one.
                        a, b = np.uint64(base), np.uint64(base + next_j)
                        c, d = np.uint64(base + next_i), np.uint64(base + next_i + next_j)
                        if begin > 0 and start + (begin - 1) * step == -1:
                            row[first + begin - 1] = fk * (wa * flat[a] + wb * flat[b] + wc * flat[c] + wd * flat[d])
                        if end < length and start + end * step == size_k - 1:
                            y = np.uint64((size_k - 1) % step * phase + phase - 1)
                            near = wa * flat[a + y] + wb * flat[b + y] + wc * flat[c + y] + wd * flat[d + y]
                            row[first + end] = (one - fk) * near
                    first += length
                if part == 0:
                    for t in range(count):
                        out[channel, k, t] = row[t]
                else:
                    for t in range(count):
                        out[channel, k, t] -= row[t]
