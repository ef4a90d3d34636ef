"""Change of voxel spacing along a scan's own axes, as one small matrix an axis; any slab can be had alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from farvox.geometry.grid import Grid
from farvox.types import Array, FloatArray, Shape


def interpolation_matrix(source: int, target: int) -> FloatArray:
    """(target, source) weights of linear interpolation over the same field of view, half-pixel convention.

    When the axis shrinks, each target voxel is the mean of the interpolated line over its own width, so that fine
    structures are averaged and not skipped. Rows sum to 1, edges are continued outward, a ramp stays where it is.
    """
    scale = source / target
    return _rows((np.arange(target) + 0.5) * scale - 0.5, scale, source)


def pooling_matrix(source: int, target: int) -> FloatArray:
    """(target, source) weights of resampling to half the target's spacing and averaging 3 of those voxels at stride 2.

    Each mean is centred on its target voxel. Edges are continued outward, where padded pooling uses zeros.
    """
    step = source / target / 2
    centre = (2 * np.arange(target) + 1) * step - 0.5
    before, at, after = (_rows(centre + shift * step, step, source) for shift in (-1, 0, 1))
    return (before + at + after) / 3


def _rows(centre: FloatArray, scale: float, source: int) -> FloatArray:
    """A row of weights for each centre (in source voxels): the interpolated line, averaged over `scale` if above 1."""
    radius = int(np.ceil(1 + max(scale, 1) / 2))
    index = np.floor(centre)[:, None].astype(int) + np.arange(-radius, radius + 2)
    away = centre[:, None] - index
    if scale > 1:
        weight = (_triangle_integral(away + scale / 2) - _triangle_integral(away - scale / 2)) / scale
    else:
        weight = np.clip(1 - np.abs(away), 0, None)
    matrix = np.zeros((len(centre), source), dtype=np.float64)
    rows = np.broadcast_to(np.arange(len(centre))[:, None], index.shape)
    np.add.at(matrix, (rows, np.clip(index, 0, source - 1)), weight)
    return matrix


def _triangle_integral(x: FloatArray) -> FloatArray:
    """Area under the unit triangle (1 - |t|, from -1 to 1) left of x."""
    x = np.clip(x, -1, 1)
    return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


@dataclass(frozen=True)
class Resample:
    """Transform between two grids that weight axes and field of view and differ in spacing.

    Args:
        source: Grid of the values.
        target: Grid of the result.
        antialias_pooling: Whether values are averaged as by `pooling_matrix`; the inverse interpolates.
    """

    source: Grid
    target: Grid
    antialias_pooling: bool = False

    @classmethod
    def to_spacing(cls, grid: Grid, spacing: Sequence[float]) -> Resample:
        """The transform to the grid of nearest whole size with about `spacing` (mm) over the same field of view."""
        size = np.maximum(1, np.round(np.array(grid.shape) * grid.spacing / np.asarray(spacing, dtype=float)))
        return cls.to_shape(grid, tuple(int(n) for n in size))  # type: ignore[arg-type]

    @classmethod
    def to_shape(cls, grid: Grid, shape: Shape) -> Resample:
        """The transform to `shape` voxels over the same field of view."""
        factor = np.array(grid.shape) / np.array(shape)
        affine = grid.affine.copy()
        affine[:3, :3] *= factor
        affine[:3, 3] += grid.affine[:3, :3] @ (0.5 * factor - 0.5)
        return cls(grid, Grid(shape, affine))

    @property
    def inverse(self) -> Resample:
        """The inverse transform."""
        return Resample(self.target, self.source)

    @property
    def identity(self) -> bool:
        """True when there is nothing to compute: both grids have the same shape, and nothing is averaged."""
        return self.source.shape == self.target.shape and not self.antialias_pooling

    def source_range(self, start: int, stop: int) -> tuple[int, int]:
        """Range of source slices along K that target slices [start, stop) depend on."""
        if self.identity:
            return start, stop
        used = np.flatnonzero(self._matrix(2)[start:stop].any(0))
        return int(used[0]), int(used[-1]) + 1

    def apply(
        self, array: Array | torch.Tensor, start: int = 0, stop: int | None = None, offset: int = 0
    ) -> torch.Tensor:
        """Linear interpolation of (..., I, J, K) to target slices [start, stop) along K, float32.

        Args:
            array: On the source grid, or only its slices from `offset` on, those of `source_range`.
            start: First target slice along K.
            stop: One past the last; None for all.
            offset: Source index of the array's first slice along K.
        """
        stop = self.target.shape[2] if stop is None else stop
        first, last = self.source_range(start, stop)
        out = torch.as_tensor(array[..., first - offset : last - offset]).float()
        if self.identity:
            return out
        matrix = torch.from_numpy(self._matrix(2)[start:stop, first:last]).to(out)
        out = out @ matrix.T
        for axis in sorted((0, 1), key=lambda a: self.target.shape[a] / self.source.shape[a]):
            if self.antialias_pooling or self.source.shape[axis] != self.target.shape[axis]:
                matrix = torch.from_numpy(self._matrix(axis)).to(out)
                out = torch.movedim(
                    torch.tensordot(matrix, out, dims=([1], [out.ndim - 3 + axis])), 0, out.ndim - 3 + axis
                )
        return out

    def apply_labels(self, classes: Array) -> Array:
        """Class indices (I, J, K) → class indices on the target: the class with most weight at each voxel.

        One class at a time against a running maximum, so memory does not grow with the number of classes.
        """
        if self.identity:
            return np.ascontiguousarray(classes)
        best = torch.full(self.target.shape, -1.0)
        out = torch.zeros(self.target.shape, dtype=torch.uint8)
        for value in np.unique(classes):
            weight = self.apply((classes == value).astype(np.float32))
            larger = weight > best
            best = torch.where(larger, weight, best)
            out[larger] = int(value)
        return out.numpy()

    def _matrix(self, axis: int) -> FloatArray:
        matrix = pooling_matrix if self.antialias_pooling else interpolation_matrix
        return matrix(self.source.shape[axis], self.target.shape[axis])
