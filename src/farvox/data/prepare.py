"""From a scan to network space: canonical axes, target spacing, normalised intensities; any slab alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from farvox.geometry import Grid, Orient, Resample
from farvox.types import Array

_STATISTICS_VOXELS = 1_000_000


class IntensityStep(BaseModel):
    """How one channel's intensities become network input: clip to [low, high], subtract `mean`, divide by `sd`.

    `per-scan` takes the four figures from each scan: its 0.5th and 99.5th percentile, then mean and standard
    deviation of what was clipped. Voxels at the scan's minimum are left out when they make up more than a quarter
    (air around a skull-stripped brain, zero filling). `fixed` holds the figures (HU for CT).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["per-scan", "fixed"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    sd: float = Field(1.0, gt=0)

    def for_channel(self, channel: Array) -> IntensityStep:
        """The step with its four figures known for this (I, J, K) channel."""
        return self if self.kind == "fixed" else fixed_step(voxel_sample(channel))

    def apply(self, channel: torch.Tensor) -> torch.Tensor:
        """Normalise in place."""
        return channel.clamp_(self.low, self.high).sub_(self.mean).div_(self.sd)


class Preparation(BaseModel):
    """Everything needed to bring a scan to network space again; part of the bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spacing: tuple[float, float, float]
    """mm along right, anterior, superior."""
    channels: tuple[str, ...]
    intensity: tuple[IntensityStep, ...]
    """One step a channel."""


@dataclass(frozen=True)
class NetworkSpace:
    """A scan seen in network space; slabs are computed when asked for, the whole never has to be in memory.

    Args:
        image: (C, I, J, K) in canonical orientation, the file's intensities (a view of the scan).
        orient: Scan grid → canonical grid.
        resample: Canonical grid → network grid.
        steps: One intensity step a channel, figures known.
    """

    image: Array
    orient: Orient
    resample: Resample
    steps: tuple[IntensityStep, ...]

    @property
    def grid(self) -> Grid:
        """Grid of network space."""
        return self.resample.target

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """Normalised input (C, I, J, stop - start), float32, for network slices [start, stop) along K."""
        first, last = self.resample.needs(start, stop)
        block = _own_float_copy(self.image[..., first:last])
        out = self.resample.apply(block, start, stop, offset=first)
        for channel, step in zip(out, self.steps, strict=True):
            step.apply(channel)
        return out


def to_network_space(image: Array, grid: Grid, preparation: Preparation) -> NetworkSpace:
    """Plan the way of a scan (C, I, J, K) on `grid` into network space; cheap apart from intensity statistics."""
    orient = Orient.to_canonical(grid)
    canonical = orient.apply(image)
    steps = tuple(s.for_channel(c) for s, c in zip(preparation.intensity, canonical, strict=True))
    return NetworkSpace(canonical, orient, Resample.to_spacing(orient.target, preparation.spacing), steps)


def voxel_sample(channel: Array, limit: int = _STATISTICS_VOXELS) -> Array:
    """At most about `limit` voxels of (I, J, K), evenly spread, float64, as input of intensity statistics."""
    step = max(1, int(np.ceil((channel.size / limit) ** (1 / 3))))
    return channel[::step, ::step, ::step].astype(np.float64).ravel()


def fixed_step(values: Array) -> IntensityStep:
    """Clip limits, mean and spread from a sample of intensities, background at the minimum left out when large."""
    darkest = values.min()
    if (values == darkest).mean() > 0.25 and (values > darkest).any():
        values = values[values > darkest]
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = values.min(), values.max()
    clipped = np.clip(values, low, high)
    return IntensityStep(
        kind="fixed", low=float(low), high=float(high), mean=float(clipped.mean()), sd=float(max(clipped.std(), 1e-6))
    )


def _own_float_copy(array: Array) -> torch.Tensor:
    # A copy even of float32, since it is normalised in place; and torch takes neither negative strides nor
    # big-endian data.
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
