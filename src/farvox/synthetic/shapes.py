"""Implicit shapes of the phantom: distance fields in mm, negative inside, evaluated at any set of points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from farvox.types import FloatArray


def rotation(degrees: Sequence[float] | FloatArray) -> FloatArray:
    """(3, 3) rotation about the x, y and z axes, one after the other, angles in degrees."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().astype(np.float32)


def ellipsoid(
    points: FloatArray, centre: FloatArray, radii: FloatArray, degrees: Sequence[float] | FloatArray = (0, 0, 0)
) -> FloatArray:
    """Distance to an ellipsoid to first order: exact on the surface, same sign everywhere.

    Args:
        points: (3, N), mm.
        centre: (3,), mm.
        radii: (3,) semi-axes, mm; infinite along the axis of a cylinder.
        degrees: Rotation of the ellipsoid about x, y and z.

    Returns:
        (N,) mm.
    """
    radii = np.asarray(radii, dtype=np.float32)[:, None]
    local = rotation(degrees).T @ (points - np.asarray(centre, dtype=np.float32)[:, None]) / radii
    norm = np.sqrt((local**2).sum(0))
    slope = np.sqrt(((local / radii) ** 2).sum(0))
    return norm * (norm - 1) / np.maximum(slope, 1e-6)


def barrel(points: FloatArray, half_width: float, half_depth: float, power: float = 2.4) -> FloatArray:
    """Distance to an upright column with a superelliptic cross-section, measured along the ray from its axis.

    Args:
        points: (3, N), mm.
        half_width: Semi-axis along x, mm.
        half_depth: Semi-axis along y, mm.
        power: 2 is an ellipse, larger values are boxier.

    Returns:
        (N,) mm.
    """
    x, y = np.maximum(np.abs(points[:2]), np.float32(0.01))  # on the axis itself there is no ray
    norm = ((x / half_width) ** power + (y / half_depth) ** power) ** (1 / power)
    return np.hypot(x, y) * (1 - 1 / norm)


def vessel(points: FloatArray, knots: FloatArray, radius: float) -> FloatArray:
    """Distance to a round tube that runs upward through `knots`.

    Args:
        points: (3, N), mm.
        knots: (M, 3) points of the centre line, ascending in z, mm.
        radius: mm.

    Returns:
        (N,) mm, corrected for the slope of the centre line.
    """
    line = CubicSpline(knots[:, 2], knots[:, :2])
    z = np.clip(points[2], knots[0, 2], knots[-1, 2])
    across = points[:2] - line(z).T.astype(np.float32)
    along = line(z, 1).T.astype(np.float32)
    # a slanted line is nearer than its distance within the slice: leave out the part of `across` that follows the line
    follows = (across * along).sum(0) ** 2 / (1 + (along**2).sum(0))
    return np.sqrt(np.maximum((across**2).sum(0) - follows, 0)) - np.float32(radius)


def union(*distances: FloatArray, rounding: float = 10.0) -> FloatArray:
    """Union of shapes whose seams are filled up over about `rounding` mm."""
    out = distances[0]
    for other in distances[1:]:
        overlap = np.clip(1 - np.abs(out - other) / rounding, 0, None)
        out = np.minimum(out, other) - overlap**2 * rounding / 4
    return out


def intersection(*distances: FloatArray) -> FloatArray:
    """Intersection of shapes."""
    return np.maximum.reduce(distances)


def smooth_field(points: FloatArray, rng: np.random.Generator, wavelength: float, waves: int = 8) -> FloatArray:
    """Random field that varies over about half a wavelength: a sum of plane waves, mean 0, standard deviation about 1.

    Args:
        points: (3, N), mm.
        rng: Source of directions and phases.
        wavelength: mm; single waves are up to a quarter shorter or longer.
        waves: How many.

    Returns:
        (N,).
    """
    directions = rng.standard_normal((waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= 2 * np.pi / (wavelength * rng.uniform(0.75, 1.25, (waves, 1)))
    phases = rng.uniform(0, 2 * np.pi, (waves, 1))
    return np.cos(directions.astype(np.float32) @ points + phases.astype(np.float32)).sum(0) * np.float32(
        np.sqrt(2 / waves)
    )
