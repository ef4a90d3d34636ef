"""Progressive refinement: evaluate a network at few points, which concentrate on likely positions round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from farvox.geometry import Grid
from farvox.localization.estimate import MassEstimate, estimate_centroid
from farvox.types import FloatArray

PointFunction = Callable[[FloatArray], FloatArray]
"""(N, 3) mm → (N, classes) probabilities."""

_PROPOSAL_SCALE = 1.5
"""Standard deviation of a proposal in standard deviations of the structure, so that samples cross its boundary."""
_R_SEQUENCE_BASE = 1.2207440846057596
"""Root of r⁴ = r + 1. Its inverse powers give the 3D R-sequence (Roberts 2018), as the golden ratio does in 1D."""


@dataclass(frozen=True)
class WeightedSamples:
    """Points at which a network was evaluated.

    Args:
        points_mm: (N, 3), mm.
        probabilities: (N, classes) float32.
        volumes: (N,) volume that each point represents, mm³.
    """

    points_mm: FloatArray
    probabilities: FloatArray
    volumes: FloatArray


@dataclass(frozen=True)
class _GaussianProposal:
    """A normal distribution from which `count` points are drawn."""

    centre: FloatArray
    covariance: FloatArray
    count: int

    def draw(self, rng: np.random.Generator) -> FloatArray:
        normal = ndtri(np.clip(quasi_random_points(self.count, rng), 1e-9, 1 - 1e-9))
        return np.asarray(self.centre + normal @ np.linalg.cholesky(self.covariance).T)

    def density(self, points: FloatArray) -> FloatArray:
        """Expected number of points per mm³."""
        root = np.linalg.cholesky(self.covariance)
        whitened = np.linalg.solve(root, (points - self.centre).T)
        normalisation = self.count / ((2 * np.pi) ** 1.5 * np.prod(np.diag(root)))
        return np.asarray(normalisation * np.exp(-0.5 * (whitened**2).sum(0)))


def sample_progressively(
    evaluate: PointFunction, grid: Grid, spacing_mm: float, *, rounds: int, samples: int, seed: int
) -> WeightedSamples:
    """Sample the whole scan, then positions of high probability, more densely in each round.

    Each structure gets samples in proportion to the standard error of its centroid. In the first half of the rounds
    samples cover all likely positions of a structure, in the second half only the one with the most probability mass.

    Args:
        evaluate: The network.
        grid: Grid of the scan; all points are within its outer faces.
        spacing_mm: Voxel spacing of the network grid, the smallest useful distance between points.
        rounds: Number of rounds; the first covers the whole scan.
        samples: Largest number of points in all rounds together.
        seed: Seed of the sampling.
    """
    rng = np.random.default_rng(seed)
    per_round = samples // rounds
    uniform_density = per_round / (grid.n_voxels * grid.voxel_ml * 1000)
    points = grid.unit_to_mm(2 * quasi_random_points(per_round, rng) - 1)
    probabilities = evaluate(points)
    proposals: list[_GaussianProposal] = []
    for number in range(1, rounds):
        volumes = 1 / _density(points, uniform_density, proposals)
        whole = number <= rounds // 2
        masses = [estimate_centroid(points, column, volumes, whole) for column in probabilities.T[1:]]
        errors = np.array([mass.error_mm for mass in masses])
        counts = np.floor(per_round * errors / errors.sum()).astype(int)
        new_proposals = [
            _GaussianProposal(mass.centre, proposal_covariance(mass, spacing_mm), int(count))
            for mass, count in zip(masses, counts, strict=True)
        ]
        new_points = np.concatenate([proposal.draw(rng) for proposal in new_proposals])
        new_points = new_points[(np.abs(grid.mm_to_unit(new_points)) <= 1).all(1)]
        proposals += new_proposals
        points = np.concatenate((points, new_points))
        probabilities = np.concatenate((probabilities, evaluate(new_points)))
    return WeightedSamples(points, probabilities, 1 / _density(points, uniform_density, proposals))


def quasi_random_points(count: int, rng: np.random.Generator) -> FloatArray:
    """(count, 3) points of a quasi-random sequence in the unit cube, from a random start."""
    increments = 1 / _R_SEQUENCE_BASE ** np.arange(1, 4)
    return (rng.random(3) + np.arange(1, count + 1)[:, None] * increments) % 1


def proposal_covariance(mass: MassEstimate, spacing_mm: float) -> FloatArray:
    """(3, 3) covariance of the proposal for a structure, mm²: wider than the structure and the sample spacing."""
    return _PROPOSAL_SCALE**2 * mass.covariance + max(mass.spacing_mm, spacing_mm) ** 2 * np.eye(3)


def _density(points: FloatArray, uniform_density: float, proposals: list[_GaussianProposal]) -> FloatArray:
    total = np.full(len(points), uniform_density)
    for proposal in proposals:
        total += proposal.density(points)
    return total
