"""Preprocessing of scans for the network: axes, spacing and intensities, as stored in a bundle's manifest."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from farvox.geometry import Grid, Resample
from farvox.recipes.load import RENAMED_VALUES
from farvox.types import Array

_STATISTICS_VOXELS = 1_000_000
_Size = Annotated[int, Field(ge=1)]


class IntensityNormalization(BaseModel):
    """How one channel's intensities become network input: clip to [low, high], subtract `mean`, divide by `sd`.

    `percentile` takes the four values from each scan: its 0.5th and 99.5th percentile, then mean and standard
    deviation of what was clipped. Voxels at the scan's minimum are left out when they make up more than a quarter
    (air around a skull-stripped brain, zero filling). `zscore` takes mean and standard deviation of each scan as it is
    and clips nothing. `dataset` stores the values (HU for CT).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        Literal["percentile", "dataset", "zscore"],
        BeforeValidator(lambda kind: RENAMED_VALUES["intensity.normalization"].get(kind, kind)),
    ]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    sd: float = Field(1.0, gt=0)

    def for_channel(self, channel: Array) -> IntensityNormalization:
        """The normalisation with its four values for this (I, J, K) channel."""
        if self.kind == "zscore":
            sample = subsample_voxels(channel)
            low, high = float(channel.min()), float(channel.max())
            return IntensityNormalization(
                kind="dataset", low=low, high=high, mean=float(sample.mean()), sd=float(max(sample.std(), 1e-6))
            )
        return self if self.kind == "dataset" else fit_fixed_normalization(subsample_voxels(channel))

    def apply(self, channel: torch.Tensor) -> torch.Tensor:
        """Normalise in place."""
        return channel.clamp_(self.low, self.high).sub_(self.mean).div_(self.sd)


class Preprocessing(BaseModel):
    """Everything needed to transform a scan to network space; part of the bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spacing: tuple[float, float, float] | None = None
    """mm along the three axes; None where `shape` is given."""
    shape: tuple[_Size, _Size, _Size] | None = None
    """Voxels that every scan becomes, however long its axes are in mm; instead of a spacing."""
    axes: str = Field("RAS", pattern="^[RL][AP][SI]$")
    """Where the axes of network space point."""
    antialias_pooling: bool = False
    """Whether voxels are averaged as if the scan were resampled to half the spacing, then pooled: 3×3×3, stride 2."""
    channels: tuple[str, ...]
    intensity: tuple[IntensityNormalization, ...]
    """One step a channel."""

    @model_validator(mode="after")
    def _says_one_size(self) -> Preprocessing:
        if (self.spacing is None) == (self.shape is None):
            raise ValueError("either spacing or shape")
        return self

    def resample(self, grid: Grid) -> Resample:
        """The transform from a scan's reoriented grid to the network's grid."""
        if self.spacing is not None:
            step = Resample.to_spacing(grid, self.spacing)
        else:
            step = Resample.to_shape(grid, self.shape or grid.shape)
        return Resample(step.source, step.target, self.antialias_pooling)


def subsample_voxels(channel: Array, limit: int = _STATISTICS_VOXELS) -> Array:
    """At most about `limit` voxels of (I, J, K), evenly spaced, float64, as input of intensity statistics."""
    step = max(1, int(np.ceil((channel.size / limit) ** (1 / 3))))
    return channel[::step, ::step, ::step].astype(np.float64).ravel()


def fit_fixed_normalization(values: Array) -> IntensityNormalization:
    """Clip limits, mean and standard deviation of sampled intensities, without a large background at the minimum."""
    darkest = values.min()
    if (values == darkest).mean() > 0.25 and (values > darkest).any():
        values = values[values > darkest]
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = values.min(), values.max()
    clipped = np.clip(values, low, high)
    return IntensityNormalization(
        kind="dataset", low=float(low), high=float(high), mean=float(clipped.mean()), sd=float(max(clipped.std(), 1e-6))
    )
