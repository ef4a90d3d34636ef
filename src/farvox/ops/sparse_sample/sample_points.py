"""Where an operation answers: at the nodes of a regular grid, or at free points given as a plain tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SampleGrid:
    """Output positions on a regular grid over the image.

    Args:
        shape: Outputs along each axis, of the whole grid.
        align_corners: True puts ±1 on the centres of the corner voxels, for offsets too; False (half pixel) on the
            outer faces of the image.
        start: First output along the first axis that is wanted; with `stop`, a slab of the grid.
        stop: One past the last such output; None for all.
    """

    shape: tuple[int, ...]
    align_corners: bool = False
    start: int = 0
    stop: int | None = None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Outputs along each axis that are answered."""
        if self.start == 0 and self.stop is None:
            return self.shape  # as it is: its sizes may be symbols
        return (len(range(*slice(self.start, self.stop).indices(self.shape[0]))), *self.shape[1:])

    @property
    def count(self) -> int:
        """Number of outputs."""
        return math.prod(self.wanted)

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
    """Output positions anywhere.

    Args:
        positions: (B, S, d), normalised, half-pixel convention.
        offset_transforms: (B, S, d, d), each multiplying the offsets of its own point; None leaves them as they are.
    """

    positions: torch.Tensor
    offset_transforms: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of outputs."""
        return self.positions.shape[1]


SamplePoints = SampleGrid | FreePoints


def flatten_positions(places: SamplePoints, like: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Positions (B or 1, S, d) in the dtype and on the device of `like`, and whether corners are aligned."""
    if isinstance(places, SampleGrid):
        return places.positions(like), places.align_corners
    return places.positions.to(like.dtype), False
