"""Optimises the displacement at one resolution.

Heinrich, Oktay and Bouteldja, "OBELISK", MIDL 2018, section 3.1: the L1 difference of frozen features is minimised over
the sampling coordinates of the moving scan, with a penalty on the difference between the displacements and a B-spline
filtered version of them. Added here: optimisation from coarse to fine, with one spline for each resolution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.ops.warp import FeatureDistance
from farvox.registration.features import ScanFeatures
from farvox.registration.field import Displacement, Spline, axis_coordinates, bending_penalty, evaluate_spline
from farvox.types import FloatArray

_STEP = 0.3
"""Learning rate of the first step, in voxels of the features; it decreases to a tenth in the last."""


def optimise(
    displacement: Displacement,
    fixed: ScanFeatures,
    moving: ScanFeatures,
    *,
    features_mm: float,
    control_mm: float,
    iterations: int,
    smoothness: float,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[float, float]:
    """Add a spline to the displacement, which minimises the feature distance at one resolution.

    Args:
        displacement: The displacement of the coarser resolutions; receives the new spline.
        fixed: Normalised features of the fixed scan.
        moving: Those of the moving scan.
        features_mm: Spacing of the features, mm.
        control_mm: Spacing of the control points, mm.
        iterations: Adam steps.
        smoothness: Weight of the bending penalty.
        progress: Called with the fraction done, 0 to 1.

    Returns:
        The feature distance before the first step, and at the step with the smallest loss.

    Raises:
        DataError: No voxel of the fixed scan is inside the moving scan.
    """
    fixed_features, moving_features = fixed.at_spacing(features_mm), moving.at_spacing(features_mm)
    coordinates = axis_coordinates(fixed_features.grid)
    start = torch.from_numpy(initial_points(displacement, fixed_features.grid, moving_features.grid))
    per_mm = torch.from_numpy(unit_per_mm(displacement, moving_features.grid)).float()
    single_voxel_axes = [axis for axis in range(3) if fixed_features.grid.shape[axis] == 1]
    # Points outside the moving scan are not compared; there the spline is extrapolated smoothly. The set of points is
    # constant, because otherwise moving out of the scan would reduce the loss.
    inside = torch.nonzero((start.abs() <= 1).all(1))[:, 0]
    if not len(inside):
        raise DataError(
            "no voxel of the fixed scan is inside the moving scan",
            allowed="scans that overlap",
            hint="--init centers or --init search",
        )
    start = start[inside]
    distance = FeatureDistance(fixed_features.maps.flatten(1)[:, inside], moving_features.maps)
    spline = Spline.zeros(displacement.grid, control_mm)
    basis = spline.basis(coordinates)
    scale = torch.full((3, 1, 1, 1), features_mm)
    scale[single_voxel_axes] = 0  # a single slice is deformed within its plane
    # The parameters are in voxels of the features, so the learning rate suits all resolutions.
    parameters = torch.zeros_like(spline.coefficients, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], lr=_STEP)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, max(iterations - 1, 1))
    best, smallest_loss, distances = torch.zeros_like(spline.coefficients), float("inf"), []
    for number in range(iterations):
        coefficients = parameters * scale
        moved = evaluate_spline(coefficients, basis)
        data = distance(start + moved.flatten(1).T[inside] @ per_mm.T)
        loss = data + smoothness * bending_penalty(coefficients, control_mm)
        distances.append(data.item())
        if loss.item() < smallest_loss:
            # The best step is used, not the last, so that equal scans get a displacement of exactly 0.
            best, smallest_loss, best_distance = coefficients.detach().clone(), loss.item(), distances[-1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress((number + 1) / iterations)
    displacement.splines.append(Spline(best, control_mm))
    return distances[0], best_distance


def initial_points(displacement: Displacement, fixed: Grid, moving: Grid) -> FloatArray:
    """(S, 3) float32: the current positions of the voxels of `fixed` in `moving`, −1 to +1."""
    moved = displacement.on_grid(fixed).reshape(3, -1).T
    points: FloatArray = moving.mm_to_unit(fixed.centres() + moved).astype(np.float32)
    return points


def unit_per_mm(displacement: Displacement, moving: Grid) -> FloatArray:
    """(3, 3): change of the coordinates in `moving` (−1 to +1) per mm along each axis of the displacement."""
    per_voxel: FloatArray = 2 / np.array(moving.shape)[:, None]
    return per_voxel * np.linalg.solve(moving.affine[:3, :3], displacement.grid.axes)
