"""How a displacement stretches and folds space: jacobian_determinant of its Jacobian, in mm."""

from __future__ import annotations

import numpy as np

from farvox.geometry import Grid
from farvox.types import Array, FloatArray

_SLAB = 16


def jacobian_determinant(field: FloatArray, grid: Grid) -> FloatArray:
    """Volume that a unit of volume at each voxel is moved to; 0 or less where space folds.

    Central differences inside, one-sided ones at the faces. Along an axis of one voxel nothing changes.

    Args:
        field: (3, I, J, K) displacement, mm, RAS+.
        grid: Where it lies; axes may be oblique.

    Returns:
        (I, J, K) float32.
    """
    out = np.empty(grid.shape, dtype=np.float32)
    to_index = np.linalg.inv(grid.affine[:3, :3])
    depth = grid.shape[2]
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        slab = field[..., low:high].astype(np.float64)
        slopes = [np.gradient(slab, axis=axis) if slab.shape[axis] > 1 else np.zeros_like(slab) for axis in (1, 2, 3)]
        by_index = np.stack(slopes, -1)[:, :, :, start - low : stop - low]  # (3, I, J, n, 3)
        jacobian = np.moveaxis(by_index @ to_index, 0, -2) + np.eye(3)  # (I, J, n, 3, 3)
        out[..., start:stop] = np.linalg.det(jacobian)
    return out


def jacobian_statistics(determinant: Array) -> dict[str, float]:
    """Figures of a field's jacobian_determinant.

    Returns:
        `folded`: share of voxels with a determinant of 0 or less; `log_sd`: standard deviation of the natural logarithm
        of the others; `least` and `most`.
    """
    sound = determinant[determinant > 0]
    return {
        "folded": float((determinant <= 0).mean()),
        "log_sd": float(np.log(sound).std()) if sound.size else 0.0,
        "least": float(determinant.min()),
        "most": float(determinant.max()),
    }
