"""Move the points at which the moving scan's features are read until they agree with the fixed scan's.

Heinrich, Oktay and Bouteldja, "OBELISK", MIDL 2018, section 3.1: the L1 difference of frozen features is minimised by
changing the moving scan's sampling coordinates, with a penalty on the difference between the displacements and a
B-spline filtered version of them. Ours beyond it: from coarse to fine, each level with a spline of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.ops.warp import FeatureDistance
from farvox.registration.features import ScanFeatures
from farvox.registration.field import Displacement, Spline, axis_coordinates, bending_penalty, evaluate
from farvox.types import FloatArray

_STEP = 0.3
"""About how far a control point moves in a first step, voxels of the level's features; a tenth of it in the last."""


@dataclass(frozen=True)
class Level:
    """One resolution.

    Args:
        features_mm: Spacing of the features that are compared, mm.
        control_mm: Spacing of the control points, mm.
        iterations: Steps of Adam.
        smoothness: Weight of the penalty.
    """

    features_mm: float
    control_mm: float
    iterations: int
    smoothness: float


def refine(
    displacement: Displacement,
    fixed: ScanFeatures,
    moving: ScanFeatures,
    level: Level,
    told: Callable[[float], None] | None = None,
) -> tuple[float, float]:
    """Add a spline to the displacement that brings the features at this level together.

    Args:
        displacement: What is known so far; gets one spline more.
        fixed: Comparable features of the fixed scan.
        moving: Those of the moving scan.
        level: The resolution.
        told: Told the finished share, 0 to 1.

    Returns:
        Feature distance before, and where the loss is least.

    Raises:
        DataError: No voxel of the fixed scan is found inside the moving one.
    """
    wanted, read = fixed.at_spacing(level.features_mm), moving.at_spacing(level.features_mm)
    lines = axis_coordinates(wanted.grid)
    start = torch.from_numpy(initial_points(displacement, wanted.grid, read.grid))
    per_mm = torch.from_numpy(unit_per_mm(displacement, read.grid)).float()
    flat = [axis for axis in range(3) if wanted.grid.shape[axis] == 1]
    # Where the moving scan does not reach nothing is compared; the spline carries on from where it does. Which points
    # these are stays as it was at the level's start, or leaving the scan would pay.
    inside = torch.nonzero((start.abs() <= 1).all(1))[:, 0]
    if not len(inside):
        raise DataError(
            "no voxel of the fixed scan lies inside the moving one",
            allowed="scans that overlap by more than their rims",
            hint="--start centres, or --start search",
        )
    start = start[inside]
    distance = FeatureDistance(wanted.maps.flatten(1)[:, inside], read.maps)
    spline = Spline.zeros(displacement.grid, level.control_mm)
    matrices = spline.matrices(lines)
    free = torch.full((3, 1, 1, 1), level.features_mm)
    free[flat] = 0  # nothing moves out of a single slice
    # In voxels of the level, so that levels converge alike whatever their size in mm.
    steps = torch.zeros_like(spline.coefficients, requires_grad=True)
    optimiser = torch.optim.Adam([steps], lr=_STEP)
    slowing = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, max(level.iterations - 1, 1))
    best, least, distances = torch.zeros_like(spline.coefficients), float("inf"), []
    for number in range(level.iterations):
        coefficients = steps * free
        moved = evaluate(coefficients, matrices)
        data = distance(start + moved.flatten(1).T[inside] @ per_mm.T)
        loss = data + level.smoothness * bending_penalty(coefficients, level.control_mm)
        distances.append(data.item())
        if loss.item() < least:
            # The best is kept and not the last: scans that agree already stay exactly where they are.
            best, least, kept = coefficients.detach().clone(), loss.item(), distances[-1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        slowing.step()
        if told:
            told((number + 1) / level.iterations)
    displacement.splines.append(Spline(best, level.control_mm))
    return distances[0], kept


def initial_points(displacement: Displacement, fixed: Grid, moving: Grid) -> FloatArray:
    """(S, 3) float32: where the voxels of `fixed` are found in `moving` so far, normalised."""
    moved = displacement.on(fixed).reshape(3, -1).T
    points: FloatArray = moving.mm_to_unit(fixed.centres() + moved).astype(np.float32)
    return points


def unit_per_mm(displacement: Displacement, moving: Grid) -> FloatArray:
    """(3, 3): normalised coordinates of `moving` for a mm along each axis of the displacement."""
    per_voxel: FloatArray = 2 / np.array(moving.shape)[:, None]
    return per_voxel * np.linalg.solve(moving.affine[:3, :3], displacement.grid.axes)
