"""A smooth displacement of the fixed scan's space: a constant and cubic B-splines, in mm, known at every position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from farvox.geometry import Grid
from farvox.types import FloatArray

AxisCoordinates = tuple[FloatArray, FloatArray, FloatArray]
"""Positions along each of a grid's axes, mm from the middle of its field of view."""


def axis_coordinates(grid: Grid) -> AxisCoordinates:
    """Where a grid's voxel centres lie; grids over one field of view share the origin."""
    i, j, k = ((np.arange(n) - (n - 1) / 2) * size for n, size in zip(grid.shape, grid.spacing, strict=True))
    return i, j, k


@dataclass(frozen=True)
class Spline:
    """Cubic B-spline over an even lattice of control points centred in the field of view.

    Args:
        coefficients: (3, a, b, c) displacement along the grid's axes, mm; a single point along an axis holds all
            along it.
        spacing: Distance between control points, mm.
    """

    coefficients: torch.Tensor
    spacing: float

    @classmethod
    def zeros(cls, grid: Grid, spacing: float) -> Spline:
        """No displacement, with control points enough for the field of view of `grid`; one along an axis of one voxel.

        Rows beyond each end let the spline bend freely up to the faces.
        """
        extent = np.array(grid.shape) * grid.spacing
        counts = [1 if n == 1 else int(np.ceil(mm / spacing)) + 3 for n, mm in zip(grid.shape, extent, strict=True)]
        return cls(torch.zeros(3, *counts), spacing)

    def matrices(self, lines: AxisCoordinates) -> list[torch.Tensor]:
        """Weights of the control points along each axis for positions along it, (positions, control points) each."""
        return [
            torch.from_numpy(_weights(line, count, self.spacing)).float()
            for line, count in zip(lines, self.coefficients.shape[1:], strict=True)
        ]

    def at(self, lines: AxisCoordinates) -> torch.Tensor:
        """(3, i, j, k) mm along the grid's axes, on the lattice of the lines."""
        return evaluate(self.coefficients, self.matrices(lines))


def evaluate(coefficients: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """(3, a, b, c) and three (positions, control points) → (3, i, j, k); differentiable in the coefficients."""
    out = coefficients @ matrices[2].T
    out = (out.transpose(2, 3) @ matrices[1].T).transpose(2, 3)
    return (out.movedim(1, 3) @ matrices[0].T).movedim(3, 1)


def bending_penalty(coefficients: torch.Tensor, spacing: float) -> torch.Tensor:
    """Mean squared difference between control points and their B-spline filtered version, in control spacings.

    The filter takes (1, 4, 1) / 6 along each axis, which are the spline's own values at its control points; what varies
    linearly passes it unchanged, so that translating, turning and scaling the whole costs nothing. The penalty of
    section 3.1, which leaves the filter's width open.

    Args:
        coefficients: (3, a, b, c), mm.
        spacing: Distance between control points, mm.
    """
    smooth = coefficients
    for axis in (1, 2, 3):
        count = smooth.shape[axis] - 2
        if count < 1:
            continue
        before, at, after = (smooth.narrow(axis, start, count) for start in (0, 1, 2))
        # The ends stay: continued beyond them in a straight line they are their own mean.
        ends = smooth.narrow(axis, 0, 1), smooth.narrow(axis, count + 1, 1)
        smooth = torch.cat((ends[0], (before + 4 * at + after) / 6, ends[1]), axis)
    return (coefficients - smooth).square().mean() / spacing**2


@dataclass
class Displacement:
    """Where every position x of the fixed scan's space is found in the moving one: x + start + sum of splines.

    Args:
        grid: Gives axes and field of view; of the fixed scan, in the network's order of axes.
        start: (3,) mm, RAS+, the same everywhere.
        splines: Their displacements add up.
    """

    grid: Grid
    start: FloatArray
    splines: list[Spline] = field(default_factory=list)

    def along_grid_axes(self, lines: AxisCoordinates) -> torch.Tensor:
        """(3, i, j, k) of the splines alone, mm along the grid's axes."""
        shape = [len(line) for line in lines]
        return sum((spline.at(lines) for spline in self.splines), start=torch.zeros(3, *shape))

    def on(self, grid: Grid) -> FloatArray:
        """(3, I, J, K) mm, RAS+, float32, at the voxels of a grid with these axes and this field of view."""
        turned = torch.tensordot(
            torch.from_numpy(self.grid.axes).float(), self.along_grid_axes(axis_coordinates(grid)), 1
        )
        moved = turned + torch.from_numpy(self.start).float()[:, None, None, None]
        out: FloatArray = moved.numpy()
        return out


def _weights(positions: FloatArray, count: int, spacing: float) -> FloatArray:
    if count == 1:
        return np.ones((len(positions), 1))
    away = np.abs(positions[:, None] / spacing - (np.arange(count) - (count - 1) / 2))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far)
