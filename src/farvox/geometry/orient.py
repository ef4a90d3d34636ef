"""Bring voxel axes to the canonical order (right, anterior, superior) and back: flips and swaps, no interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farvox.geometry.grid import Grid
from farvox.types import Array


@dataclass(frozen=True)
class Orient:
    """Permutation and flips of the last three axes that convert `source` to `target`; a view, no copy."""

    source: Grid
    target: Grid
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    """Whether each *source* axis is flipped."""

    @classmethod
    def to_canonical(cls, grid: Grid, axes: str = "RAS") -> Orient:
        """The transform that makes axis I point right, J anterior and K superior, as nearly as whole axes can.

        Args:
            grid: Grid of the scan.
            axes: Where I, J and K point instead: R or L, A or P, S or I.
        """
        order, (a, b, c) = grid.nearest_axes
        against = {order[axis]: axes[axis] != "RAS"[axis] for axis in range(3)}
        flips = (a ^ against[0], b ^ against[1], c ^ against[2])
        affine = grid.affine.copy()
        for axis in range(3):
            if flips[axis]:
                affine[:3, 3] += affine[:3, axis] * (grid.shape[axis] - 1)
                affine[:3, axis] *= -1
        affine[:3, :3] = affine[:3, order]
        i, j, k = (grid.shape[axis] for axis in order)
        return cls(grid, Grid((i, j, k), affine), order, flips)

    def apply(self, array: Array) -> Array:
        """(..., I, J, K) on `source` → (..., I, J, K) on `target`."""
        lead = array.ndim - 3
        flipped = np.flip(array, tuple(lead + axis for axis in range(3) if self.flips[axis]))
        return np.transpose(flipped, [*range(lead), *(lead + axis for axis in self.order)])

    def invert(self, array: Array) -> Array:
        """(..., I, J, K) on `target` → (..., I, J, K) on `source`."""
        lead = array.ndim - 3
        back = np.transpose(array, [*range(lead), *(lead + int(axis) for axis in np.argsort(self.order))])
        return np.flip(back, tuple(lead + axis for axis in range(3) if self.flips[axis]))
