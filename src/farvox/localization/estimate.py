"""Where a structure lies, from probabilities at points that need not be evenly spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farvox.types import Array, FloatArray

_MIN_RELATIVE_PROBABILITY = 0.7
"""Share of the highest probability that a point must reach to take part."""
_LEAST_POINTS = 12
_LEAST_PROBABILITY = 1e-30
"""In place of zero, so that there is something to divide by where a structure is nowhere."""
_REACH = 3.0
"""Standard deviations within which mass belongs together."""
_ROUNDS = 20
_STARTS, _MAX_NEIGHBOURS = 300, 3000
"""Points that may be the peak, and those that are counted around each: enough to tell, and soon done."""


@dataclass(frozen=True)
class MassEstimate:
    """A structure's probability mass as sampled.

    Args:
        centre: (3,) its centroid, mm.
        covariance: (3, 3) its spread, mm².
        spacing_mm: Distance between neighbouring samples where the mass lies.
        mean_probability: Mean probability over the mass, 0 to 1.
        error_mm: Standard error of the centroid that comes of sampling, mm.
    """

    centre: FloatArray
    covariance: FloatArray
    spacing_mm: float
    mean_probability: float
    error_mm: float


def estimate_centroid(
    points_mm: FloatArray, probabilities: FloatArray, volumes: FloatArray, whole: bool = False
) -> MassEstimate:
    """Centroid and spread of a structure.

    The centroid is the mean of place over the volume, weighted by probability: the integral of x·P(x) over that of
    P(x). Each point stands for the volume it represents, so that where many points were drawn counts no more than
    where few were. Only points of at min_confidence 0.7 of the highest probability take part, since a little probability over a
    whole scan would outweigh a small structure. Where there are several places, the one of most mass is meant: mass
    around it is taken in as long as it lies within three standard deviations of what belongs to it already, which
    follows a long structure to its ends and leaves an island out.

    Args:
        points_mm: (N, 3), mm.
        probabilities: (N,) of the structure, 0 to 1.
        volumes: (N,) what each point stands for, mm³: one over the density of drawing.
        whole: Take all places together, while it is too early to choose between them.
    """
    highest = float(probabilities.max())
    chosen = np.flatnonzero(probabilities >= _MIN_RELATIVE_PROBABILITY * highest)
    if len(chosen) < _LEAST_POINTS < len(probabilities):
        chosen = np.argpartition(-probabilities, _LEAST_POINTS)[:_LEAST_POINTS]
    points, volumes = points_mm[chosen], volumes[chosen]
    certainties = np.maximum(probabilities[chosen].astype(np.float64), _LEAST_PROBABILITY)
    mass = certainties * volumes
    kept = np.ones(len(points), bool) if whole else _around_peak(points, mass, float(volumes.sum()))
    for _ in range(_ROUNDS):
        share = np.where(kept, mass, 0) / mass[kept].sum()
        centre = share @ points
        away = points - centre
        spacing = float(share @ volumes) ** (1 / 3)
        covariance = (share[:, None] * away).T @ away
        # Samples say nothing of what lies between them, hence half their distance on top.
        spread = covariance + (spacing / 2) ** 2 * np.eye(3)
        near = (away * np.linalg.solve(spread, away.T).T).sum(1) <= _REACH**2
        if whole or not near.any() or (near == kept).all():
            break
        kept = near
    error = float(np.sqrt(np.trace(spread) * (share**2).sum()))
    return MassEstimate(centre, covariance, spacing, float(share @ certainties), error)


def _around_peak(points: FloatArray, mass: FloatArray, volume: float) -> Array:
    """(N,) whether each point lies near the one with most mass about it, by the size of a ball of the whole volume."""
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    some = np.linspace(0, len(points) - 1, min(len(points), _MAX_NEIGHBOURS)).astype(int)
    starts = points[some[:: -(-len(some) // _STARTS)]]
    crowd = [float(np.exp(-((points[some] - s) ** 2).sum(1) / (2 * radius**2)) @ mass[some]) for s in starts]
    return np.asarray(np.linalg.norm(points - starts[int(np.argmax(crowd))], axis=1) <= 1.5 * radius)
