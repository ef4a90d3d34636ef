"""The initial translation: from the headers, from the centres of the fields of view, or the best of many."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.ops.warp import FeatureDistance
from farvox.registration.features import ScanFeatures
from farvox.types import Array, FloatArray

_MAX_TRANSLATION = 0.3
"""Largest translation of the search, as a fraction of the fixed field of view along each axis."""
_STEPS = 4
"""Translations on either side along each axis."""
_MIN_OVERLAP = 0.5
"""Smallest fraction of the fixed voxels that a translation must leave inside the moving scan."""


def initial_from_headers(fixed: Grid, moving: Grid) -> FloatArray:
    """Zero translation.

    Raises:
        DataError: The scans do not overlap.
    """
    if _inside(fixed, moving, np.zeros(3)).any() or _inside(moving, fixed, np.zeros(3)).any():
        return np.zeros(3)
    distance = float(np.linalg.norm(_centre(moving) - _centre(fixed)))
    raise DataError(
        f"the scans do not overlap: the distance between their centres is {distance:.0f} mm",
        allowed="scans whose headers place them on top of each other",
        hint="--init centers or --init search",
    )


def overlap_fraction(fixed: Grid, moving: Grid, translation: FloatArray) -> float:
    """Approximate fraction of the fixed field of view inside the moving one after a translation (3,) mm, 0 to 1."""
    return float(_inside(fixed, moving, translation).mean())


def initial_from_centres(fixed: Grid, moving: Grid) -> FloatArray:
    """(3,) mm, RAS+, from the centre of the fixed field of view to that of the moving one."""
    return _centre(moving) - _centre(fixed)


def initial_from_search(fixed: ScanFeatures, moving: ScanFeatures) -> FloatArray:
    """The translation with the smallest feature distance, around the one from centre to centre.

    The search uses a regular lattice along the fixed axes, up to 0.3 of the field of view, and refines the best
    translation twice with half the step.

    Args:
        fixed: Normalised features of the fixed scan at a coarse spacing.
        moving: Those of the moving scan.

    Returns:
        (3,) mm, RAS+.
    """
    axes = fixed.grid.axes
    size_mm = np.where(np.array(fixed.grid.shape) > 1, np.array(fixed.grid.shape) * fixed.grid.spacing, 0)
    best, step = initial_from_centres(fixed.grid, moving.grid), _MAX_TRANSLATION * size_mm / _STEPS
    steps, centres = _STEPS, fixed.grid.centres()
    # Channels last, as `FeatureDistance` uses them: converted once, not for each translation.
    fixed_maps, moving_maps = (side.maps.movedim(0, -1).contiguous().movedim(-1, 0) for side in (fixed, moving))

    def distance(translation: FloatArray) -> float:
        return _distance(fixed_maps, moving_maps, moving.grid.mm_to_unit(centres + translation))

    for _ in range(3):
        best = min(
            (best + axes @ (np.array(n) * step) for n in product(range(-steps, steps + 1), repeat=3)), key=distance
        )
        steps, step = 1, step / 2
    return best


def _distance(fixed_maps: torch.Tensor, moving_maps: torch.Tensor, points: FloatArray) -> float:
    """Mean feature distance of the fixed voxels that are inside the moving scan; infinite if they are too few."""
    inside = (np.abs(points) <= 1).all(1)
    if inside.mean() < _MIN_OVERLAP:
        return float("inf")
    fixed_features = fixed_maps.flatten(1)[:, torch.from_numpy(inside)]
    return float(FeatureDistance(fixed_features, moving_maps)(torch.from_numpy(points[inside]).float()))


def _inside(grid: Grid, other: Grid, translation: FloatArray) -> Array:
    """(729,) whether each of 9×9×9 positions over `grid` is inside `other` after a translation."""
    axes = [np.linspace(-1, 1, 9)] * 3
    points = grid.unit_to_mm(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
    return np.asarray((np.abs(other.mm_to_unit(points + translation)) <= 1).all(1))


def _centre(grid: Grid) -> FloatArray:
    return np.asarray(grid.unit_to_mm(np.zeros((1, 3)))[0])
