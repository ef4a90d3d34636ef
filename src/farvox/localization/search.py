"""Ask a network at few points, step by step nearer to where structures are likely: progressive refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from farvox.geometry import Grid
from farvox.localization.estimate import Mass, estimate_mass
from farvox.types import FloatArray

Ask = Callable[[FloatArray], FloatArray]
"""(N, 3) mm → (N, classes) probabilities."""

_WIDER = 1.5
"""Draws spread by so much more than the mass they follow, so as to see its edge."""
_RATIO = 1.2207440846057596
"""Root of r⁴ = r + 1: steps by its inverse powers fill a cube evenly, as those by the golden ratio fill a line."""


@dataclass(frozen=True)
class Draw:
    """Points at which a network was asked.

    Args:
        points_mm: (N, 3).
        probabilities: (N, classes) float32.
        volumes: (N,) mm³ each point stands for.
    """

    points_mm: FloatArray
    probabilities: FloatArray
    volumes: FloatArray


@dataclass(frozen=True)
class _Cloud:
    """A normal distribution that `count` points were drawn from."""

    centre: FloatArray
    covariance: FloatArray
    count: int

    def draw(self, rng: np.random.Generator) -> FloatArray:
        normal = ndtri(np.clip(even_places(self.count, rng), 1e-9, 1 - 1e-9))
        return self.centre + normal @ np.linalg.cholesky(self.covariance).T

    def density(self, points: FloatArray) -> FloatArray:
        """Expected points per mm³."""
        root = np.linalg.cholesky(self.covariance)
        away = np.linalg.solve(root, (points - self.centre).T)
        return self.count * np.exp(-0.5 * (away**2).sum(0)) / ((2 * np.pi) ** 1.5 * np.prod(np.diag(root)))


def refine(ask: Ask, grid: Grid, spacing_mm: float, *, steps: int, samples: int, seed: int) -> Draw:
    """Draw points over the whole scan, then around the places of high probability, closer at every step.

    Each structure gets samples in proportion to how uncertain its centroid still is. In the first half of the steps
    all places where it may be are drawn at, then only the one where most of its mass lies.

    Args:
        ask: The network.
        grid: Of the scan; points are drawn between its outer faces.
        spacing_mm: Distance of voxels in network space, below which points need not lie closer.
        steps: Rounds of asking, the first one over the whole scan.
        samples: Points in all, at most.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    each = samples // steps
    volume = grid.voxels * grid.voxel_ml * 1000
    points = grid.from_normalised(2 * even_places(each, rng) - 1)
    probabilities = ask(points)
    clouds: list[_Cloud] = []
    for step in range(1, steps):
        density = _density(points, each / volume, clouds)
        whole = step <= steps // 2
        masses = [estimate_mass(points, column, 1 / density, whole) for column in probabilities.T[1:]]
        need = np.array([mass.error_mm for mass in masses])
        counts = np.floor(each * need / need.sum()).astype(int)
        pairs = zip(masses, counts, strict=True)
        new = [_Cloud(mass.centre, _spread(mass, spacing_mm), int(count)) for mass, count in pairs]
        drawn = np.concatenate([cloud.draw(rng) for cloud in new])
        drawn = drawn[(np.abs(grid.normalised(drawn)) <= 1).all(1)]
        clouds += new
        points = np.concatenate((points, drawn))
        probabilities = np.concatenate((probabilities, ask(drawn)))
    return Draw(points, probabilities, 1 / _density(points, each / volume, clouds))


def even_places(count: int, rng: np.random.Generator) -> FloatArray:
    """(count, 3) places in the unit cube, spread evenly, from a random start."""
    steps = 1 / _RATIO ** np.arange(1, 4)
    return (rng.random(3) + np.arange(1, count + 1)[:, None] * steps) % 1


def _density(points: FloatArray, uniform: float, clouds: list[_Cloud]) -> FloatArray:
    total = np.full(len(points), uniform)
    for cloud in clouds:
        total += cloud.density(points)
    return total


def _spread(mass: Mass, spacing_mm: float) -> FloatArray:
    """Covariance to draw with: that of the mass, wider, and not below the distance of its samples."""
    return _WIDER**2 * mass.covariance + max(mass.spacing_mm, spacing_mm) ** 2 * np.eye(3)
