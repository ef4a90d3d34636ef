"""Affine sampling of a patch from a volume; the only code that uses `grid_sample` with its reversed axes and ranges."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import grid_sample

from farvox.types import Array, FloatArray, Shape


def patch_bounds(matrix: FloatArray, centre: FloatArray, shape: Shape, volume: Shape) -> list[slice]:
    """Smallest block of `volume` that `sample_patch` reads for this matrix, centre (voxels) and patch shape."""
    half_size = np.abs(matrix) @ ((np.array(shape) - 1) / 2)
    first = np.clip(np.floor(centre - half_size).astype(int), 0, np.array(volume) - 1)
    last = np.clip(np.ceil(centre + half_size).astype(int), first, np.array(volume) - 1)
    return [slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]


def sample_patch(
    block: torch.Tensor, matrix: FloatArray, centre: FloatArray, shape: Shape, *, nearest: bool = False
) -> torch.Tensor:
    """Sample (C, I, J, K) at `centre + matrix @ (o - (shape - 1) / 2)` for every patch voxel o.

    Args:
        block: Volume, float.
        matrix: 3×3, patch voxels to block voxels.
        centre: Block voxel at the centre of the patch.
        shape: Patch voxels.
        nearest: Nearest voxel instead of trilinear interpolation.

    Returns:
        (C, *shape); zero outside the block.
    """
    size = np.array(block.shape[1:])
    # grid_sample runs over (K, J, I) and, with align_corners off, puts voxel v of n at (2 v + 1) / n - 1.
    to_unit = 2.0 / size
    linear = (to_unit[:, None] * matrix)[::-1]
    start = (to_unit * (centre + 0.5) - 1)[::-1]
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    terms = [
        axis.to(block.device).reshape([-1 if d == n else 1 for n in range(3)] + [1])
        * torch.from_numpy(linear[:, d].copy()).to(block)
        for d, axis in enumerate(axes)
    ]
    grid = terms[0] + terms[1] + terms[2] + torch.from_numpy(start.copy()).to(block)
    mode = "nearest" if nearest else "bilinear"
    return grid_sample(block[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]


def mm_to_voxel_matrix(matrix_mm: FloatArray, spacing: FloatArray | Array) -> FloatArray:
    """A 3×3 matrix acting on mm along the voxel axes, as it acts on voxel indices of the given spacing (mm)."""
    spacing = np.asarray(spacing, dtype=np.float64)
    return matrix_mm * spacing[None, :] / spacing[:, None]
