"""Continuous points drawn from training scans, their classes, and random transforms of their offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from farvox.labels import IGNORE, LabelTable
from farvox.preprocessing.cases import PreprocessedCase
from farvox.sampling.augment import AXES, random_matrices
from farvox.types import Array, FloatArray, IntArray, Shape


def sample_points(
    case: PreprocessedCase, count: int, rule: Literal["uniform", "class-balanced", "mixed"], rng: np.random.Generator
) -> FloatArray:
    """Draw `count` continuous points (count, 3) of a scan, voxels.

    `uniform` draws anywhere between the scan's outer faces. `class-balanced` draws a class of those present, background
    included, then one of its voxels, then a point within that voxel. `mixed` draws half by either rule: rare classes
    occur often, and so does background that resembles them.
    """
    if rule == "mixed":
        half = count // 2 + int(rng.integers(count % 2 + 1))
        return np.concatenate(
            (sample_points(case, half, "uniform", rng), sample_points(case, count - half, "class-balanced", rng))
        )
    if rule == "uniform":
        return rng.uniform(0, case.shape, (count, 3)) - 0.5
    present = [points for points in case.voxels_by_class if len(points)]
    classes = rng.integers(len(present), size=count)
    voxels = np.array([present[n][rng.integers(len(present[n]))] for n in classes]).reshape(-1, 3)
    return voxels + rng.uniform(-0.5, 0.5, (count, 3))


def label_at_points(classes: Array, points: FloatArray, rule: Literal["linear", "nearest"]) -> Array:
    """Class of each point (S, 3), voxels, uint8.

    `linear` gives each of the eight voxels around a point its trilinear weight and takes the class, or `IGNORE`, with
    most of it; points up to half a voxel outside the middle of the outermost voxels take those.
    """
    last = np.array(classes.shape) - 1
    if rule == "nearest":
        i, j, k = np.clip(np.rint(points).astype(int), 0, last).T
        return np.asarray(classes[i, j, k])
    inside = np.clip(points, 0, last)
    low = np.minimum(inside.astype(int), np.maximum(last - 1, 0))
    fraction = inside - low
    corners, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        i, j, k = np.minimum(low + corner, last).T
        corners.append(classes[i, j, k])
        weights.append(np.where(corner, fraction, 1 - fraction).prod(1))
    around, weight = np.stack(corners, 1), np.stack(weights, 1)  # (S, 8)
    # The weight that each corner's class has in all; at most eight classes meet.
    total = ((around[:, :, None] == around[:, None, :]) * weight[:, None, :]).sum(2)
    return around[np.arange(len(around)), total.argmax(1)]


def to_normalised(points: FloatArray, shape: Shape) -> FloatArray:
    """Voxels → −1 to +1 between the outer faces along each axis."""
    return (2 * points + 1) / np.array(shape) - 1


def random_offset_transforms(
    count: int, strength: float, flips: Sequence[str], extent: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """A matrix for the offsets of each point: what `random_matrices` and `flip` do to a patch, without resampling.

    OBELISK, MIDL 2018, section 2.1: identity plus `strength` times normal draws, drawn for every point. As for
    patches the matrix acts on mm, so that it turns shapes and not proportions of the field of view.

    Args:
        count: Number of points.
        strength: Spread of the nine entries.
        flips: Axes swap_left_right half of the time, out of `farvox.sampling.augment.AXES`.
        extent: Field of view along each axis, mm.
        rng: Source of the draws.

    Returns:
        (count, 3, 3) acting on normalised offsets, and (count,) 1 where left and right are mirrored, else 0.
    """
    matrices = random_matrices(count, strength, extent / 2, rng)
    signs = np.ones((count, 3))
    for name in flips:
        signs[:, AXES.index(name)] = rng.choice((-1, 1), count)
    return matrices * signs[:, :, None], (signs[:, 0] < 0).astype(int)


def swap_left_right(classes: Array, mirrored: IntArray, labels: LabelTable) -> Array:
    """Classes (S,) with those of a left/right pair swapped where `mirrored` is 1."""
    table = np.arange(IGNORE + 1, dtype=np.uint8)
    table[: labels.classes] = labels.mirror_classes
    return np.where(mirrored == 1, table[classes], classes)
