"""A smooth displacement field: a translation and a sum of cubic B-splines, in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from farvox.geometry import Grid
from farvox.types import FloatArray

AxisCoordinates = tuple[FloatArray, FloatArray, FloatArray]
"""Positions along each of a grid's axes, mm from the centre of its field of view."""


def axis_coordinates(grid: Grid) -> AxisCoordinates:
    """Positions of the voxel centres along each axis; grids with the same field of view have the same origin."""
    i, j, k = ((np.arange(n) - (n - 1) / 2) * size for n, size in zip(grid.shape, grid.spacing, strict=True))
    return i, j, k


@dataclass(frozen=True)
class Spline:
    """A cubic B-spline on a regular lattice of control points, centred in the field of view.

    Args:
        coefficients: (3, a, b, c) displacement along the grid's axes, mm. Along an axis with one control point the
            spline is constant.
        spacing: Distance between control points, mm.
    """

    coefficients: torch.Tensor
    spacing: float

    @classmethod
    def zeros(cls, grid: Grid, spacing: float) -> Spline:
        """A spline of zero displacement for the field of view of `grid`; one control point along an axis of one voxel.

        The rows beyond each end let the spline bend freely up to the faces.
        """
        sizes_mm = np.array(grid.shape) * grid.spacing
        counts = [1 if n == 1 else int(np.ceil(mm / spacing)) + 3 for n, mm in zip(grid.shape, sizes_mm, strict=True)]
        return cls(torch.zeros(3, *counts), spacing)

    def basis(self, coordinates: AxisCoordinates) -> list[torch.Tensor]:
        """Weights of the control points at the coordinates of each axis, (positions, control points) each."""
        return [
            torch.from_numpy(_weights(positions, count, self.spacing)).float()
            for positions, count in zip(coordinates, self.coefficients.shape[1:], strict=True)
        ]

    def evaluate(self, coordinates: AxisCoordinates) -> torch.Tensor:
        """(3, i, j, k) displacement along the grid's axes at all combinations of the coordinates, mm."""
        return evaluate_spline(self.coefficients, self.basis(coordinates))


def evaluate_spline(coefficients: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """(3, a, b, c) and three (positions, control points) → (3, i, j, k); differentiable in the coefficients."""
    out = coefficients @ basis[2].T
    out = (out.transpose(2, 3) @ basis[1].T).transpose(2, 3)
    return (out.movedim(1, 3) @ basis[0].T).movedim(3, 1)


def bending_penalty(coefficients: torch.Tensor, spacing: float) -> torch.Tensor:
    """Mean squared difference between control points and their B-spline filtered version, in control spacings.

    The filter is (1, 4, 1) / 6 along each axis, which gives the values of the spline at its control points. Linear
    functions pass it unchanged, so affine transforms have no penalty. Section 3.1 of the paper defines the penalty and
    does not define the width of the filter.

    Args:
        coefficients: (3, a, b, c), mm.
        spacing: Distance between control points, mm.
    """
    smooth = coefficients
    for axis in (1, 2, 3):
        count = smooth.shape[axis] - 2
        if count < 1:
            continue
        before, centre, after = (smooth.narrow(axis, start, count) for start in (0, 1, 2))
        # The ends are extrapolated linearly, so the filter leaves them unchanged.
        ends = smooth.narrow(axis, 0, 1), smooth.narrow(axis, count + 1, 1)
        smooth = torch.cat((ends[0], (before + 4 * centre + after) / 6, ends[1]), axis)
    return (coefficients - smooth).square().mean() / spacing**2


@dataclass
class Displacement:
    """Maps each position x of the fixed scan to x + initial + sum of splines(x) in the moving scan.

    Args:
        grid: Grid of the fixed scan, in the network's order of axes; defines axes and field of view.
        initial: (3,) translation, mm, RAS+.
        splines: Their displacements are added.
    """

    grid: Grid
    initial: FloatArray
    splines: list[Spline] = field(default_factory=list)

    def on_grid(self, grid: Grid) -> FloatArray:
        """(3, I, J, K) mm, RAS+, float32, at the voxels of a grid with the same axes and field of view."""
        coordinates = axis_coordinates(grid)
        zeros = torch.zeros(3, *grid.shape)
        along_axes = sum((spline.evaluate(coordinates) for spline in self.splines), start=zeros)
        ras = torch.tensordot(torch.from_numpy(self.grid.axes).float(), along_axes, 1)
        out: FloatArray = (ras + torch.from_numpy(self.initial).float()[:, None, None, None]).numpy()
        return out


def _weights(positions: FloatArray, count: int, spacing: float) -> FloatArray:
    if count == 1:
        return np.ones((len(positions), 1))
    distance = np.abs(positions[:, None] / spacing - (np.arange(count) - (count - 1) / 2))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)
