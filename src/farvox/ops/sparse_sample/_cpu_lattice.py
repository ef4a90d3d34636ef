"""Free points at distances of whole voxels, such as every voxel of a region or every fourth, sampled in runs.

As on a regular grid (see README.md), an offset has one set of eight weights for all points. A run is along the last
axis in whole steps; the image is split into as many phases as a step has voxels, so that samples of neighbouring points
are contiguous in memory. The image is padded with zeros, so that no sample needs a bounds check.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from farvox.ops.jit import kernel
from farvox.types import Array, FloatArray, IntArray

_ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Tolerance of normalised coordinates: rounding errors of single precision."""
_MIN_LENGTH = 1.5
"""Mean number of points per run from which runs are faster than single points."""
_LARGEST_STEP = 4
"""Largest distance between consecutive points of a run, voxels."""
_LARGEST_COPY = 4
"""Largest size of the padded copy, relative to the image."""
_FARTHEST = 1e6
"""Voxels; points farther away are outside of every image."""
_LANES = 16
"""Runs are padded to a multiple of this number of points, for vector registers."""


class Lattice:
    """Points of one image as runs, and the padded image; made by `find_lattice`.

    Args:
        image: (C, i, j, k).
        positions: (S, 3), voxels.
        cells: (S, 3) whole voxels from the first point.
        step: Voxels from one point of a run to the next.
        reads: (3, R) offsets, voxels; all first offsets of pairs before all second ones.
        pairs: 1, or 2 for pairs.

    Attributes:
        small: Whether the copy of the image is small enough; if not, there are no other attributes.
    """

    def __init__(
        self, image: torch.Tensor, positions: FloatArray, cells: IntArray, step: int, reads: FloatArray, pairs: int
    ) -> None:
        at = positions[0][:, None] + reads  # (3, R)
        with np.errstate(invalid="ignore"):
            at = np.where(np.abs(at) < _FARTHEST, at, np.float32(-_FARTHEST))  # NaN is outside as well
        low = np.floor(at)
        frac = at - low
        low = low.astype(np.int64)
        sizes = np.array(image.shape[1:])[:, None]
        first, last = cells.min(0)[:, None], cells.max(0)[:, None]
        used = ((low + last >= -1) & (low + first < sizes)).all(0)
        low = np.where(used, low, -first)  # samples outside of the image get zero weights
        self._low = (low + first).min(1)
        shape = (low + last).max(1) + 2 - self._low
        shape[2] += -shape[2] % step
        self.small = bool(np.prod(shape.astype(float)) <= _LARGEST_COPY * np.prod(sizes.astype(float)))
        if not self.small:
            return
        ends = [(int(-a), int(a + n - size)) for a, n, size in zip(self._low, shape, image.shape[1:], strict=True)]
        box = F.pad(image, (*ends[2], *ends[1], *ends[0]))
        if step > 1:
            box = box.unflatten(3, (-1, step)).movedim(4, 3)
        self._flat = F.pad(box.reshape(-1), (0, _LANES)).numpy()
        plane, line, phase = int(shape[1] * shape[2]), int(shape[2]), int(shape[2] // step)
        self._volume = int(np.prod(shape))
        self._corners = np.array((0, line, plane, plane + line))
        cell = low - self._low[:, None]
        rows = cell[0] * plane + cell[1] * line
        near, far = (rows + (k % step) * phase + k // step for k in (cell[2], cell[2] + 1))
        self._shifts = np.stack((near, far), 1)
        i, j, k = (np.stack((1 - f, f)) for f in frac)
        weights = k[:, None, None] * i[None, :, None] * j[None, None]  # (k, i, j, R)
        self._weights = np.ascontiguousarray((weights * used).reshape(8, -1).T, np.float32)
        # Offsets that sample neighbouring planes are consecutive.
        self._order = np.argsort(low[0].reshape(pairs, -1), axis=1, kind="stable")
        self._bases = cells[:, 0] * plane + cells[:, 1] * line + cells[:, 2] // step
        self._starts = np.concatenate(([True], (np.diff(cells, axis=0) != (0, 0, step)).any(1)))
        self._channels, self._half = image.shape[0], reads.shape[1] // pairs

    def sample(self, span: slice) -> Array | None:
        """(C, K, T) features of a tile of points; None if its runs are too short."""
        starts = np.flatnonzero(self._starts[span])
        count = span.stop - span.start
        if not len(starts) or starts[0]:
            starts = np.concatenate(([0], starts))
        if count < _MIN_LENGTH * len(starts):
            return None
        out = np.empty((self._channels, self._half, count), np.float32)
        lengths = np.diff(starts, append=count)
        bases = self._bases[span][starts]
        _sample(self._flat, bases, lengths, self._shifts, self._weights, self._corners, self._volume, self._order, out)
        return out


def find_lattice(image: torch.Tensor, positions: FloatArray, reads: FloatArray, pairs: int) -> Lattice | None:
    """Points (S, 3), voxels, of an image (C, i, j, k) as runs; None if runs would not be faster."""
    sizes = np.array(image.shape[1:])
    if (
        len(positions) < 2 or reads.shape[1] * len(positions) < image[0].numel()
    ):  # too few points for a copy of the image
        return None
    with np.errstate(invalid="ignore"):
        away = positions - positions[0]
    cells = np.rint(away)
    whole = (np.abs(away - cells) <= _ROUNDING * sizes) & (np.abs(cells) < _FARTHEST)
    if not whole.all():  # NaN included
        return None
    apart = np.diff(cells, axis=0)
    along = (apart[:, :2] == 0).all(1) & (apart[:, 2] > 0) & (apart[:, 2] <= _LARGEST_STEP)
    if not along.any():
        return None
    step = int(apart[along, 2].min())
    runs = len(positions) - int((along & (apart[:, 2] == step)).sum())
    if len(positions) < _MIN_LENGTH * runs or (cells[:, 2] % step).any():
        return None
    lattice = Lattice(image, positions, cells.astype(np.int64), step, reads, pairs)
    return lattice if lattice.small else None


@kernel
def _sample(flat, bases, lengths, shifts, weights, corners, volume, order, out):
    """Runs that start at `bases`: out (C, K, T).

    shifts: (R, 2) of the lower corner of each sample, and of the next along k. corners: (4,) from there, along i and j.
    weights: (R, 8). Unsigned indices avoid the check for negative ones.
    """
    channels, half, count = out.shape
    row = np.empty(count + _LANES, np.float32)
    c1, c2, c3 = np.uint64(corners[1]), np.uint64(corners[2]), np.uint64(corners[3])
    for channel in range(channels):
        for part in range(len(order)):
            for k in order[part]:
                r = part * half + k
                near, far = shifts[r, 0] + channel * volume, shifts[r, 1] + channel * volume
                w0, w1, w2, w3 = weights[r, 0], weights[r, 1], weights[r, 2], weights[r, 3]
                w4, w5, w6, w7 = weights[r, 4], weights[r, 5], weights[r, 6], weights[r, 7]
                first = np.uint64(0)
                for n in range(len(bases)):
                    a, e = np.uint64(bases[n] + near), np.uint64(bases[n] + far)
                    b, c, d = a + c1, a + c2, a + c3
                    f, g, h = e + c1, e + c2, e + c3
                    # Whole registers: surplus values are overwritten by the next run.
                    for t in range(-(-lengths[n] // _LANES) * _LANES):
                        y = np.uint64(t)
                        low = w0 * flat[a + y] + w1 * flat[b + y] + w2 * flat[c + y] + w3 * flat[d + y]
                        high = w4 * flat[e + y] + w5 * flat[f + y] + w6 * flat[g + y] + w7 * flat[h + y]
                        row[first + y] = low + high
                    first += np.uint64(lengths[n])
                if part == 0:
                    for t in range(count):
                        out[channel, k, t] = row[t]
                else:
                    for t in range(count):
                        out[channel, k, t] -= row[t]
