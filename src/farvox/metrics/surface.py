"""Agreement of two masks at their surfaces, in mm: 95th percentile Hausdorff distance and surface Dice.

MONAI's functions give the same values on plain masks (the tests compare them). They are not used here because they
cannot leave voxels out, know no sheared axes (gantry tilt), and measure all distances anew for each figure.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from farvox.types import Array, FloatArray


def surface_distances(
    prediction: Array, reference: Array, axes_mm: FloatArray, ignored: Array | None = None
) -> tuple[FloatArray, FloatArray]:
    """Distance of each surface voxel of one mask to the nearest surface voxel of the other.

    A surface voxel has at least one of its six neighbours outside the mask; beyond the array counts as outside.

    Args:
        prediction: Boolean mask (I, J, K).
        reference: Boolean mask, same shape.
        axes_mm: (3, 3), column a is the step from one voxel to the next along axis a, mm: `Grid.affine[:3, :3]`.
        ignored: Boolean (I, J, K), voxels of unknown label; a border with them is no surface. None for none.

    Returns:
        Distances in mm from prediction to reference and from reference to prediction, both empty
        where one of the masks has no surface.
    """
    ahead = _surface_points(prediction, axes_mm, ignored)
    back = _surface_points(reference, axes_mm, ignored)
    if not len(ahead) or not len(back):
        return np.empty(0), np.empty(0)
    # Trees over surface voxels need a fraction of the memory and time of a distance transform of the whole box.
    return KDTree(back).query(ahead)[0], KDTree(ahead).query(back)[0]


def hd95(distances: tuple[FloatArray, FloatArray]) -> float | None:
    """95th percentile Hausdorff distance, mm: the larger of the two directed percentiles.

    Args:
        distances: What `surface_distances` gives.

    Returns:
        0 or more; None without surfaces.
    """
    return max(float(np.percentile(directed, 95)) for directed in distances) if len(distances[0]) else None


def surface_dice(distances: tuple[FloatArray, FloatArray], tolerance_mm: float) -> float | None:
    """Share of all surface voxels, of both masks, that lie within `tolerance_mm` of the other surface.

    Args:
        distances: What `surface_distances` gives.
        tolerance_mm: Largest distance that counts as agreement, mm.

    Returns:
        0 to 1; None without surfaces.
    """
    if not len(distances[0]):
        return None
    # A tolerance of one voxel has to hold for neighbours even where the header stores the spacing in float32.
    limit = tolerance_mm * (1 + 1e-5)
    return float(np.mean(np.concatenate(distances) <= limit))


def _surface_points(mask: Array, axes_mm: FloatArray, ignored: Array | None) -> FloatArray:
    inside = mask if ignored is None else mask | ignored
    return np.argwhere(mask & ~binary_erosion(inside)) @ np.asarray(axes_mm, dtype=np.float64).T
