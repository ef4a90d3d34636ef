"""Grids, orientation and spacing; every transform has an inverse."""

from farvox.geometry.grid import Grid
from farvox.geometry.orient import Orient
from farvox.geometry.resample import Resample, interpolation_matrix
from farvox.geometry.sample import mm_to_voxel_matrix, patch_bounds, sample_patch

__all__ = [
    "Grid",
    "Orient",
    "Resample",
    "interpolation_matrix",
    "mm_to_voxel_matrix",
    "patch_bounds",
    "sample_patch",
]
