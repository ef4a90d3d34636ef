"""Where registration begins: scans as their headers place them, their middles together, or the best of many shifts."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

import numpy as np
import torch

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.ops.warp import FeatureDistance
from farvox.registration.features import ScanFeatures
from farvox.types import Array, FloatArray

InitialTransform = Literal["header", "centres", "search"]
INITIAL_TRANSFORMS: tuple[str, ...] = get_args(InitialTransform)

_REACH = 0.3
"""Furthest shift tried, as a share of the fixed field of view along each axis."""
_STEPS = 4
"""Shifts tried to either side along each axis."""
_LEAST_OVERLAP = 0.5
"""Share of the fixed voxels that a shift must leave inside the moving scan."""


def initial_from_headers(fixed: Grid, moving: Grid) -> FloatArray:
    """No displacement.

    Raises:
        DataError: The scans have no place in common.
    """
    if _inside(fixed, moving, np.zeros(3)).any() or _inside(moving, fixed, np.zeros(3)).any():
        return np.zeros(3)
    away = float(np.linalg.norm(_middle(moving) - _middle(fixed)))
    raise DataError(
        f"the scans do not overlap in space: their middles are {away:.0f} mm apart",
        allowed="scans that their headers place over each other",
        hint="--start centres, or --start search",
    )


def overlap_fraction(fixed: Grid, moving: Grid, shift: FloatArray) -> float:
    """About which share of the fixed field of view lies in the moving one, shifted by `shift` (3,) mm: 0 to 1."""
    return float(_inside(fixed, moving, shift).mean())


def initial_from_centres(fixed: Grid, moving: Grid) -> FloatArray:
    """(3,) mm, RAS+, from the middle of one field of view to the other's."""
    return _middle(moving) - _middle(fixed)


def initial_from_search(fixed: ScanFeatures, moving: ScanFeatures) -> FloatArray:
    """The shift, from middle on middle up to a third of the field of view, that leaves features most alike.

    Shifts lie on an even lattice along the fixed axes; the best is refined on one of half the step, twice.

    Args:
        fixed: Comparable features at a coarse spacing.
        moving: Those of the moving scan.

    Returns:
        (3,) mm, RAS+.
    """
    axes = fixed.grid.axes
    extent = np.where(np.array(fixed.grid.shape) > 1, np.array(fixed.grid.shape) * fixed.grid.spacing, 0)
    best, step = initial_from_centres(fixed.grid, moving.grid), _REACH * extent / _STEPS
    reach, centres = _STEPS, fixed.grid.centres()
    # Features side by side, as distances read them: laid out once and not for every shift.
    wanted, read = (side.maps.movedim(0, -1).contiguous().movedim(-1, 0) for side in (fixed, moving))
    for _ in range(3):
        candidates = [best + axes @ (np.array(n) * step) for n in product(range(-reach, reach + 1), repeat=3)]
        best = min(candidates, key=lambda shift: _difference(wanted, read, moving.grid.mm_to_unit(centres + shift)))
        reach, step = 1, step / 2
    return best


def _difference(wanted: torch.Tensor, maps: torch.Tensor, points: FloatArray) -> float:
    """Mean feature distance of the fixed voxels that lie inside the moving scan; infinite where they are too few."""
    inside = (np.abs(points) <= 1).all(1)
    if inside.mean() < _LEAST_OVERLAP:
        return float("inf")
    compared = wanted.flatten(1)[:, torch.from_numpy(inside)]
    return float(FeatureDistance(compared, maps)(torch.from_numpy(points[inside]).float()))


def _inside(grid: Grid, other: Grid, shift: FloatArray) -> Array:
    """Which of a handful of positions all over `grid` lie inside `other`."""
    lines = [np.linspace(-1, 1, 9)] * 3
    points = grid.unit_to_mm(np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3))
    return np.asarray((np.abs(other.mm_to_unit(points + shift)) <= 1).all(1))


def _middle(grid: Grid) -> FloatArray:
    return grid.unit_to_mm(np.zeros((1, 3)))[0]
