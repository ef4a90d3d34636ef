"""The centroid of a structure from its probability at points of any density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farvox.types import Array, FloatArray

_MIN_RELATIVE_PROBABILITY = 0.7
"""Points with a smaller fraction of the highest probability are ignored."""
_MIN_POINTS = 12
_MIN_PROBABILITY = 1e-30
"""Replaces zero, so that the weights of an absent structure have a sum above 0."""
_MAX_MAHALANOBIS = 3.0
"""Points further from the centroid, in standard deviations, do not belong to the structure."""
_MAX_ITERATIONS = 20
_MAX_PEAKS, _MAX_NEIGHBOURS = 300, 3000
"""Numbers of candidate peaks and of points counted around each, which bound the time."""


@dataclass(frozen=True)
class MassEstimate:
    """The probability mass of a structure.

    Args:
        centre: (3,) centroid, mm.
        covariance: (3, 3) covariance, mm².
        spacing_mm: Distance between neighbouring samples in the structure, mm.
        mean_probability: Mean probability over the mass, 0 to 1.
        error_mm: Standard error of the centroid due to sampling, mm.
    """

    centre: FloatArray
    covariance: FloatArray
    spacing_mm: float
    mean_probability: float
    error_mm: float


def estimate_centroid(
    points_mm: FloatArray, probabilities: FloatArray, volumes: FloatArray, whole: bool = False
) -> MassEstimate:
    """Estimate the centroid and covariance of a structure.

    The centroid is the integral of x·P(x) over the scan, divided by the integral of P(x). Each point is weighted by the
    volume that it represents, so the result does not depend on the sampling density. Points below 0.7 of the highest
    probability are ignored, because low probabilities over a whole scan would outweigh a small structure. If the mass
    has several separate parts, the part with the most mass is used: starting from its peak, all points within three
    standard deviations are added until nothing changes. This follows an elongated structure and excludes islands.

    Args:
        points_mm: (N, 3), mm.
        probabilities: (N,) probability of the structure, 0 to 1.
        volumes: (N,) volume that each point represents, mm³: the inverse of the sampling density.
        whole: Use all parts of the mass, as in early rounds, which have too few samples to choose one.
    """
    highest = float(probabilities.max())
    selected = np.flatnonzero(probabilities >= _MIN_RELATIVE_PROBABILITY * highest)
    if len(selected) < _MIN_POINTS < len(probabilities):
        selected = np.argpartition(-probabilities, _MIN_POINTS)[:_MIN_POINTS]
    points, volumes = points_mm[selected], volumes[selected]
    probabilities = np.maximum(probabilities[selected].astype(np.float64), _MIN_PROBABILITY)
    mass = probabilities * volumes
    member = np.ones(len(points), bool) if whole else _near_peak(points, mass, float(volumes.sum()))
    for _ in range(_MAX_ITERATIONS):
        weights = np.where(member, mass, 0) / mass[member].sum()
        centre = weights @ points
        offsets = points - centre
        spacing = float(weights @ volumes) ** (1 / 3)
        covariance = (weights[:, None] * offsets).T @ offsets
        # The boundary is uncertain by half the distance between samples.
        widened = covariance + (spacing / 2) ** 2 * np.eye(3)
        near = (offsets * np.linalg.solve(widened, offsets.T).T).sum(1) <= _MAX_MAHALANOBIS**2
        if whole or not near.any() or (near == member).all():
            break
        member = near
    error = float(np.sqrt(np.trace(widened) * (weights**2).sum()))
    return MassEstimate(centre, covariance, spacing, float(weights @ probabilities), error)


def _near_peak(points: FloatArray, mass: FloatArray, volume: float) -> Array:
    """(N,) whether each point is near the peak of the mass, at the scale of a sphere with the whole volume."""
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    subset = np.linspace(0, len(points) - 1, min(len(points), _MAX_NEIGHBOURS)).astype(int)
    peaks = points[subset[:: -(-len(subset) // _MAX_PEAKS)]]
    squared = (((points[subset] - peak) ** 2).sum(1) for peak in peaks)
    nearby_mass = [float(np.exp(-distances / (2 * radius**2)) @ mass[subset]) for distances in squared]
    return np.asarray(np.linalg.norm(points - peaks[int(np.argmax(nearby_mass))], axis=1) <= 1.5 * radius)
