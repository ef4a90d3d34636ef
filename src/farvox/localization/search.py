"""Ask a network at few points, step by step nearer to where structures are likely: progressive refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from farvox.geometry import Grid
from farvox.localization.estimate import MassEstimate, estimate_centroid
from farvox.types import FloatArray

Ask = Callable[[FloatArray], FloatArray]
"""(N, 3) mm → (N, classes) probabilities."""

_PROPOSAL_SCALE = 1.5
"""Draws spread by so much more than the mass they follow, so as to see its edge."""
_RATIO = 1.2207440846057596
"""Root of r⁴ = r + 1: steps by its inverse powers fill a cube evenly, as those by the golden ratio fill a line."""


@dataclass(frozen=True)
class WeightedSamples:
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
class _GaussianProposal:
    """A normal distribution that `count` points were drawn from."""

    centre: FloatArray
    covariance: FloatArray
    count: int

    def draw(self, rng: np.random.Generator) -> FloatArray:
        normal = ndtri(np.clip(quasi_random_points(self.count, rng), 1e-9, 1 - 1e-9))
        return self.centre + normal @ np.linalg.cholesky(self.covariance).T

    def density(self, points: FloatArray) -> FloatArray:
        """Expected points per mm³."""
        root = np.linalg.cholesky(self.covariance)
        away = np.linalg.solve(root, (points - self.centre).T)
        return self.count * np.exp(-0.5 * (away**2).sum(0)) / ((2 * np.pi) ** 1.5 * np.prod(np.diag(root)))


def sample_progressively(
    ask: Ask, grid: Grid, spacing_mm: float, *, steps: int, samples: int, seed: int
) -> WeightedSamples:
    """WeightedSamples points over the whole scan, then around the places of high probability, closer at every step.

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
    volume = grid.n_voxels * grid.voxel_ml * 1000
    points = grid.unit_to_mm(2 * quasi_random_points(each, rng) - 1)
    probabilities = ask(points)
    clouds: list[_GaussianProposal] = []
    for step in range(1, steps):
        density = _density(points, each / volume, clouds)
        whole = step <= steps // 2
        masses = [estimate_centroid(points, column, 1 / density, whole) for column in probabilities.T[1:]]
        need = np.array([mass.error_mm for mass in masses])
        counts = np.floor(each * need / need.sum()).astype(int)
        pairs = zip(masses, counts, strict=True)
        new = [_GaussianProposal(mass.centre, _spread(mass, spacing_mm), int(count)) for mass, count in pairs]
        drawn = np.concatenate([cloud.draw(rng) for cloud in new])
        drawn = drawn[(np.abs(grid.mm_to_unit(drawn)) <= 1).all(1)]
        clouds += new
        points = np.concatenate((points, drawn))
        probabilities = np.concatenate((probabilities, ask(drawn)))
    return WeightedSamples(points, probabilities, 1 / _density(points, each / volume, clouds))


def quasi_random_points(count: int, rng: np.random.Generator) -> FloatArray:
    """(count, 3) places in the unit cube, spread evenly, from a random start."""
    steps = 1 / _RATIO ** np.arange(1, 4)
    return (rng.random(3) + np.arange(1, count + 1)[:, None] * steps) % 1


def _density(points: FloatArray, uniform: float, clouds: list[_GaussianProposal]) -> FloatArray:
    total = np.full(len(points), uniform)
    for cloud in clouds:
        total += cloud.density(points)
    return total


def _spread(mass: MassEstimate, spacing_mm: float) -> FloatArray:
    """Covariance to draw with: that of the mass, wider, and not below the distance of its samples."""
    return _PROPOSAL_SCALE**2 * mass.covariance + max(mass.spacing_mm, spacing_mm) ** 2 * np.eye(3)
