"""Output positions of sparse sampling: a regular grid or free points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SampleGrid:
    """Output positions on a regular grid over the image.

    Args:
        shape: Outputs along each axis, of the whole grid.
        align_corners: True: ±1 are the centres of the corner voxels, for offsets too; False (half pixel): the outer
            faces of the image.
        start: First output along the first axis; with `stop`, a slab of the grid.
        stop: One past the last output; None: all.
    """

    shape: tuple[int, ...]
    align_corners: bool = False
    start: int = 0
    stop: int | None = None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Outputs along each axis, of the slab."""
        if self.start == 0 and self.stop is None:
            return self.shape  # unchanged: its sizes may be symbolic
        return (len(range(*slice(self.start, self.stop).indices(self.shape[0]))), *self.shape[1:])

    @property
    def count(self) -> int:
        """Number of outputs."""
        return math.prod(self.output_shape)

    def positions(self, like: torch.Tensor) -> torch.Tensor:
        """(1, S, d) normalised positions, last axis fastest, dtype and device of `like`."""
        axes = []
        for size in self.shape:
            index = torch.arange(size, dtype=like.dtype, device=like.device)
            if not self.align_corners:
                axes.append((2 * index + 1) / size - 1)
            else:
                axes.append(2 * index / (size - 1) - 1 if size > 1 else index)
        axes[0] = axes[0][self.start : self.stop]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, len(self.shape))


@dataclass(frozen=True)
class FreePoints:
    """Arbitrary output positions.

    Args:
        positions: (B, S, d), normalised, half-pixel convention.
        offset_transforms: (B, S, d, d), each multiplies the offsets of its point; None: no transform.
    """

    positions: torch.Tensor
    offset_transforms: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of outputs."""
        return self.positions.shape[1]


SamplePoints = SampleGrid | FreePoints


def flatten_positions(sample_points: SamplePoints, like: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Positions (B or 1, S, d) in the dtype and on the device of `like`, and whether corners are aligned."""
    if isinstance(sample_points, SampleGrid):
        return sample_points.positions(like), sample_points.align_corners
    return sample_points.positions.to(like.dtype), False
