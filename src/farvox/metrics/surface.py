"""Distances between the surfaces of two masks, in mm: 95th percentile Hausdorff distance and surface Dice.

The surface of a mask is between voxels: in every cell of 2×2×2 neighbouring voxels that has voxels inside and outside
of the mask, it consists of triangles of the marching cubes algorithm. Each cell counts with the area of its triangles
in mm², so that the values do not depend on the shape of the voxels. This is the definition of Nikolov et al.,
"Clinically applicable segmentation of head and neck anatomy", JMIR 23(7), 2021, and of their package
`surface-distance`; the tests compare the two. That package cannot leave out voxels and has no sheared axes (gantry
tilt).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.spatial import KDTree

from farvox.types import Array, FloatArray

_CORNERS = tuple(product((0, 1), repeat=3))
"""Voxels of a cell in the order of the bits of its code, the highest bit first."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from each surface element of a mask to the surface of the other, and the area of each element.

    Args:
        prediction: (N,) from the prediction's surface to the reference's, mm.
        reference: (M,) from the reference's surface to the prediction's, mm.
        prediction_areas: (N,) mm².
        reference_areas: (M,) mm².
    """

    prediction: FloatArray
    reference: FloatArray
    prediction_areas: FloatArray
    reference_areas: FloatArray


def surface_distances(
    prediction: Array, reference: Array, axes_mm: FloatArray, ignored: Array | None = None
) -> SurfaceDistances:
    """Distance of each surface element of one mask to the nearest surface element of the other.

    Voxels outside the array count as outside the mask.

    Args:
        prediction: Boolean mask (I, J, K).
        reference: Boolean mask, same shape.
        axes_mm: (3, 3), column a is the step from one voxel to the next along axis a, mm: `Grid.affine[:3, :3]`.
        ignored: Boolean (I, J, K), voxels of unknown label. They take the label of their neighbours in each cell, so
            that a border with them is no surface. None for none.

    Returns:
        The distances, all arrays empty where one of the masks has no surface.
    """
    axes = np.asarray(axes_mm, dtype=np.float64)
    points, areas = zip(*(_surface(mask, axes, ignored) for mask in (prediction, reference)), strict=True)
    if not len(points[0]) or not len(points[1]):
        return SurfaceDistances(*[np.empty(0)] * 4)
    # Trees over surface elements need a fraction of the memory and time of a distance transform of the whole box.
    ahead, back = (KDTree(points[1 - n]).query(points[n])[0] for n in (0, 1))
    return SurfaceDistances(ahead, back, *areas)


def hd95(distances: SurfaceDistances) -> float | None:
    """95th percentile Hausdorff distance, mm: the larger of the two directed percentiles, weighted by area.

    Args:
        distances: From `surface_distances`.

    Returns:
        0 or more; None without surfaces.
    """
    if not len(distances.prediction):
        return None
    pairs = (distances.prediction, distances.prediction_areas), (distances.reference, distances.reference_areas)
    return max(_percentile(directed, areas, 0.95) for directed, areas in pairs)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float | None:
    """Fraction of the area of both surfaces that is within `tolerance_mm` of the other surface.

    Args:
        distances: From `surface_distances`.
        tolerance_mm: Largest distance that counts as agreement, mm.

    Returns:
        0 to 1; None without surfaces.
    """
    if not len(distances.prediction):
        return None
    # A tolerance of one voxel must include neighbours even if the header stores the spacing in float32.
    limit = tolerance_mm * (1 + 1e-5)
    near = distances.prediction_areas[distances.prediction <= limit].sum()
    near += distances.reference_areas[distances.reference <= limit].sum()
    return float(near / (distances.prediction_areas.sum() + distances.reference_areas.sum()))


def _percentile(values: FloatArray, areas: FloatArray, fraction: float) -> float:
    """The smallest value such that values up to it cover at least the fraction of the whole area."""
    order = np.argsort(values)
    covered = np.cumsum(areas[order]) / areas.sum()
    return float(values[order][min(int(np.searchsorted(covered, fraction)), len(order) - 1)])


def _surface(mask: Array, axes: FloatArray, ignored: Array | None) -> tuple[FloatArray, FloatArray]:
    """Centre (N, 3), mm, and area (N,), mm², of every cell that the surface of a mask passes through."""
    corners = _corners(mask)
    codes = np.zeros(corners[0].shape, np.uint8)
    for bit, corner in enumerate(corners):
        codes |= corner.astype(np.uint8) << np.uint8(7 - bit)
    if ignored is not None:
        unknown = np.stack(_corners(ignored), -1)
        cells = unknown.any(-1)
        codes[cells] = _completed(np.stack(_corners(mask & ~ignored), -1)[cells], unknown[cells])
    on_surface = (codes > 0) & (codes < 255)
    return (np.argwhere(on_surface) - 0.5) @ axes.T, _areas(axes)[codes[on_surface]]


def _corners(mask: Array) -> list[Array]:
    """The eight voxels of every cell, one array (I + 1, J + 1, K + 1) per voxel."""
    padded = np.pad(mask, 1)
    return [padded[tuple(slice(c, c - 1 or None) for c in corner)] for corner in _CORNERS]


def _completed(inside: Array, unknown: Array) -> Array:
    """Codes of cells (N, 8) whose unknown voxels take the label of most of their known neighbours in the cell."""
    labelled = ~unknown
    neighbours = np.array([[n ^ 4, n ^ 2, n ^ 1] for n in range(8)])
    for _ in range(3):  # the number of steps between opposite corners
        votes = (np.where(inside, 1, -1) * labelled)[:, neighbours].sum(-1)
        reached = ~labelled & labelled[:, neighbours].any(-1)
        inside = np.where(reached, votes >= 0, inside)
        labelled = labelled | reached
    return (inside * (1 << np.arange(7, -1, -1))).sum(-1).astype(np.uint8)


def _areas(axes: FloatArray) -> FloatArray:
    """(256,) area of the surface within a cell of each code, mm²."""
    codes, triangles = _triangles()
    corners = triangles @ axes.T
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(np.bincount(codes, np.linalg.norm(normals, axis=1) / 2, minlength=256), dtype=np.float64)


@cache
def _triangles() -> tuple[Array, FloatArray]:
    """Code (T,) and corners (T, 3, 3), in voxels, of the triangles of all codes."""
    codes: list[int] = []
    triangles: list[FloatArray] = []
    for code in range(1, 255):
        inside = [bool(code >> (7 - bit) & 1) for bit in range(8)]
        for outline in _outlines(dict(zip(_CORNERS, inside, strict=True))):
            parts = max(_triangulations(np.array(outline)), key=_area)
            codes += [code] * len(parts)
            triangles += list(parts)
    return np.array(codes), np.array(triangles)


def _outlines(inside: dict[tuple[int, ...], bool]) -> Iterator[list[FloatArray]]:
    """Closed lines through the middles of a cell's edges, around its voxels of the kind that is in the minority.

    Where the two kinds meet crosswise on a face, the voxels of the minority are kept apart.
    """
    minority = sum(inside.values()) <= 4
    following: dict[tuple[float, ...], tuple[float, ...]] = {}
    for axis, side in product(range(3), (0, 1)):
        # Corners of a face in turn, counted as seen from outside the cell, so that every line runs one way round.
        around = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        face = [
            tuple(np.insert(corner, axis, side) if axis != 1 else (corner[1], side, corner[0])) for corner in around
        ]
        kinds = [inside[corner] == minority for corner in face]
        middles = [tuple((np.array(face[n]) + face[n - 3]) / 2) for n in range(4)]
        for n in range(4):
            if kinds[n] and not kinds[n - 1]:
                last = next(m for m in range(n, n + 4) if not kinds[(m + 1) % 4])
                following[middles[n - 1]] = middles[last % 4]
    while following:
        start, point = following.popitem()
        outline = [np.array(start)]
        while point != start:
            outline.append(np.array(point))
            point = following.pop(point)
        yield outline


def _triangulations(outline: FloatArray) -> Iterator[FloatArray]:
    """Every way (n - 2, 3, 3) to divide a closed line (n, 3) into triangles."""
    if len(outline) < 3:
        yield np.empty((0, 3, 3))
        return
    for n in range(1, len(outline) - 1):
        for left, right in product(_triangulations(outline[: n + 1]), _triangulations(outline[n:])):
            yield np.concatenate((left, right, outline[None, [0, n, -1]]))


def _area(triangles: FloatArray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum())
