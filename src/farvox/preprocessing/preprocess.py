"""From a scan to network space: canonical axes, target spacing, normalised intensities; any slab alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from farvox.geometry import Grid, Orient, Resample
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.types import Array


@dataclass(frozen=True)
class PreprocessedScan:
    """A scan on the network's grid. Slabs are computed on demand, so the whole need not be in memory.

    Args:
        image: (C, I, J, K) along network axes, the file's intensities (a view of the scan).
        orient: Scan grid → canonical grid.
        resample: Canonical grid → network grid.
        steps: One normalisation with known values for each channel.
    """

    image: Array
    orient: Orient
    resample: Resample
    steps: tuple[IntensityNormalization, ...]

    @property
    def grid(self) -> Grid:
        """Grid of network space."""
        return self.resample.target

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """Normalised input (C, I, J, stop - start), float32, for network slices [start, stop) along K."""
        first, last = self.resample.source_range(start, stop)
        block = _copy_float32(self.image[..., first:last])
        out = self.resample.apply(block, start, stop, offset=first)
        for channel, step in zip(out, self.steps, strict=True):
            step.apply(channel)
        return out


def preprocess(image: Array, grid: Grid, preprocessing: Preprocessing) -> PreprocessedScan:
    """Plan the way of a scan (C, I, J, K) on `grid` into network space; cheap apart from intensity statistics."""
    orient = Orient.to_canonical(grid, preprocessing.axes)
    canonical = orient.apply(image)
    steps = tuple(s.for_channel(c) for s, c in zip(preprocessing.intensity, canonical, strict=True))
    return PreprocessedScan(canonical, orient, preprocessing.resample(orient.target), steps)


def _copy_float32(array: Array) -> torch.Tensor:
    # A copy even of float32, since it is normalised in place; and torch takes neither negative strides nor
    # big-endian data.
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def zscore_normalise(patch: torch.Tensor) -> torch.Tensor:
    """Each channel of (..., C, I, J, K) at zero mean and unit variance over its voxels; a constant one becomes zero."""
    centred = patch - patch.mean((-3, -2, -1), keepdim=True)
    return centred / centred.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-6)
