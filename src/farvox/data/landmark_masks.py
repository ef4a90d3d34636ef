"""Landmarks as spheres on a scan's grid, so that they can be learned as labels."""

from __future__ import annotations

import itertools

import numpy as np

from farvox.data.dataset import LandmarkSpheres
from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.types import Array, FloatArray

_EDGE = 1e-3
"""Voxels by which a landmark may be outside the scan, because coordinates are rounded."""


def rasterise_landmarks(spheres: LandmarkSpheres, grid: Grid, case: str | None = None) -> Array:
    """Label values (I, J, K) uint8: each landmark's on the voxels whose centre is within the radius, 0 elsewhere.

    Distances are in mm through the grid's affine, so that a sphere is round in the patient for voxels of any shape.
    Where spheres overlap, a voxel belongs to the nearest landmark. A sphere that misses every centre marks the voxel
    nearest to its landmark.

    Args:
        spheres: The landmarks.
        grid: Of the scan.
        case: Id for messages.

    Raises:
        DataError: A landmark outside the scan.
    """
    points = np.array([point for *_, point in spheres.centres])
    centres = grid.mm_to_voxel(points)
    _require_inside(spheres, points, grid, case)
    flat, distances, values = [], [], []
    for (value, _, _), point, centre in zip(spheres.centres, points, centres, strict=True):
        voxels, away = _within(point, centre, spheres.landmark_radius_mm, grid)
        flat.append(np.ravel_multi_index(tuple(voxels.T), grid.shape))
        distances.append(away)
        values.append(np.full(len(away), value))
    # The last value of a voxel counts, so the nearest landmark is written last.
    order = np.argsort(-np.concatenate(distances), kind="stable")
    out = np.zeros(grid.n_voxels, dtype=np.uint8)
    out[np.concatenate(flat)[order]] = np.concatenate(values)[order]
    return out.reshape(grid.shape)


def _within(point: FloatArray, centre: FloatArray, landmark_radius_mm: float, grid: Grid) -> tuple[Array, FloatArray]:
    """Voxels (N, 3) whose centre is at most the radius away, at least one, and their distances in mm."""
    radius_voxels = landmark_radius_mm * np.linalg.norm(np.linalg.inv(grid.affine[:3, :3]), axis=1)
    last = np.array(grid.shape) - 1
    low = np.clip(np.ceil(centre - radius_voxels), 0, last).astype(int)
    high = np.clip(np.floor(centre + radius_voxels), 0, last).astype(int)
    nearest = np.clip(np.rint(centre), 0, last).astype(int)
    low, high = np.minimum(low, nearest), np.maximum(high, nearest)
    axes = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    box = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    away = np.linalg.norm(grid.voxel_to_mm(box) - point, axis=1)
    keep = away <= landmark_radius_mm
    if not keep.any():
        keep = away == away.min()
    return box[keep], away[keep]


def _require_inside(spheres: LandmarkSpheres, points: FloatArray, grid: Grid, case: str | None) -> None:
    """Raise if a landmark is outside the scan, and name the convention under which all would be inside."""
    outside = ~_inside(points, grid)
    if not outside.any():
        return
    first = int(np.flatnonzero(outside)[0])
    readings = []
    if _inside(points * (-1, -1, 1), grid).all():
        readings.append("with x and y negated (they are LPS, as 3D Slicer and ITK count, so change both signs)")
    if _inside(grid.voxel_to_mm(points), grid).all():
        readings.append("as voxel indices (multiply them by the scan's affine)")
    corners = grid.voxel_to_mm(np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in grid.shape]))))
    spans = ", ".join(
        f"{axis} {low:.1f} to {high:.1f}" for axis, low, high in zip("xyz", corners.min(0), corners.max(0), strict=True)
    )
    others = f" and {outside.sum() - 1} more" if outside.sum() > 1 else ""
    position = ", ".join(f"{value:.1f}" for value in points[first])
    raise DataError(
        f"landmark '{spheres.centres[first][1]}' at ({position}) mm{others} is outside the scan",
        allowed=f"{spans} mm, RAS+",
        hint=f"the case's landmarks would be inside {' or '.join(readings)}"
        if readings
        else "check the case's name and the unit; coordinates must be RAS+ in mm, as given by the NIfTI affine",
        case=case,
    )


def _inside(points: FloatArray, grid: Grid) -> Array:
    voxels = grid.mm_to_voxel(points)
    return np.asarray(((voxels >= -0.5 - _EDGE) & (voxels <= np.array(grid.shape) - 0.5 + _EDGE)).all(1))
