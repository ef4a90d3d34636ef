"""Predictions at points: a point network is evaluated there, the output of another network is interpolated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from farvox.bundle import Bundle
from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.models import PointNetwork
from farvox.preprocessing.preprocess import PreprocessedScan, preprocess, zscore_normalise
from farvox.types import Array, FloatArray

_CHUNK = 1 << 16
"""Points evaluated at a time: 64 MB for the 256 features of each."""


@dataclass(frozen=True, repr=False)
class PreparedScan:
    """A scan that is read and preprocessed once for many predictions; returned by `Predictor.prepare`.

    Args:
        scan: The scan as in its file.
        spaces: The preprocessed scan of each bundle.
        bundles: The bundles of the predictor that prepared it.
        prepared: For each bundle with a point network, its smoothed input (1, C, I, J, K) on the device; None for other
            networks.
    """

    scan: Scan
    spaces: tuple[PreprocessedScan, ...]
    bundles: tuple[Bundle, ...]
    prepared: tuple[torch.Tensor | None, ...]

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.scan.grid.shape))
        return f"PreparedScan({self.scan.path.name}, {shape} voxels, {len(self.bundles)} bundles)"


@dataclass(frozen=True, repr=False)
class PointPredictions:
    """Predictions at N points.

    Args:
        probabilities: (N, classes) float32, in the order of the label table; outside the scan, background has 1.
        inside: (N,) whether the point is in the scan's field of view, outer faces included.
        labels: (N,) label value, as in masks, of the most probable class.
    """

    probabilities: FloatArray
    inside: Array
    labels: Array

    def __repr__(self) -> str:
        values, counts = np.unique(self.labels, return_counts=True)
        per_label = ", ".join(f"{value}: {count}" for value, count in zip(values, counts, strict=True))
        return f"PointPredictions({len(self.labels)} points, {int(self.inside.sum())} inside; labels {per_label})"


def supports_points(bundle: Bundle) -> bool:
    """Whether a bundle's network can be evaluated at points: a point network that was trained on whole scans."""
    return bundle.manifest.inference.patch_size is None and isinstance(bundle.network, PointNetwork)


def prepare_scan(scan: Scan, bundles: tuple[Bundle, ...], device: torch.device) -> PreparedScan:
    """Preprocess a scan for each bundle, and compute the input of its point networks."""
    spaces = tuple(preprocess(scan.image, scan.grid, bundle.manifest.preprocessing) for bundle in bundles)
    prepared = tuple(
        prepare_image(bundle, space, device) if supports_points(bundle) else None
        for bundle, space in zip(bundles, spaces, strict=True)
    )
    return PreparedScan(scan, spaces, bundles, prepared)


def prepare_image(bundle: Bundle, space: PreprocessedScan, device: torch.device) -> torch.Tensor:
    """(1, C, I, J, K): the whole scan as the smoothed input of a point network."""
    network: Any = bundle.network
    image = space.slab(0, space.grid.shape[2])[None].to(device)
    with torch.inference_mode():
        normalize = bundle.manifest.inference.patch_normalization
        prepared: torch.Tensor = network.prepare(zscore_normalise(image) if normalize else image)
    return prepared


def validate_points(points_mm: object) -> FloatArray:
    """Points as (N, 3) float64.

    Raises:
        DataError: Not (N, 3) finite numbers.
    """
    allowed = "(N, 3) coordinates in mm, right, anterior, superior"
    try:
        points = np.asarray(points_mm)
        if points.dtype.kind not in "iuf":
            raise ValueError
    except ValueError:
        raise DataError("points that are not numbers", allowed=allowed) from None
    if points.size == 0 and points.ndim <= 2:
        points = points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise DataError(
            f"points of shape {points.shape}", allowed=allowed, hint="put a single point into a list of one"
        )
    if not np.isfinite(points).all():
        raise DataError("NaN or infinite coordinates among the points", allowed=allowed)
    return points.astype(np.float64)


def in_field_of_view(grid: Grid, points_mm: FloatArray) -> Array:
    """(N,) whether each point is between the outer faces of a grid, or on one of them within rounding errors."""
    return np.asarray((np.abs(grid.mm_to_unit(points_mm)) <= 1 + 1e-9).all(1))


def point_probabilities(network: Any, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(classes, N) probabilities of a point network.

    Args:
        network: The network.
        prepared: As from `prepare_image`.
        points: (N, 3) float32, −1 to +1 over the image.
    """
    points = points.to(prepared.device)
    with torch.inference_mode():
        parts = [network.forward_points(prepared, part[None])[0].softmax(0) for part in torch.split(points, _CHUNK)]
    return torch.cat(parts, 1)


def voxel_probabilities(network: Any, prepared: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
    """As `point_probabilities`, for positions (N, 3) in fractional voxels."""
    return point_probabilities(network, prepared, (2 * voxels + 1) / torch.tensor(prepared.shape[2:]) - 1)


def interpolate_probabilities(
    parts: Iterator[torch.Tensor], grid: Grid, classes: int, points_mm: FloatArray
) -> FloatArray:
    """(N, classes) probabilities, trilinear between slabs that arrive in order; outside, the nearest edge.

    Args:
        parts: (classes, I, J, n) along K of `grid`, as from `sliding_window_inference`.
        grid: Grid of the network.
        classes: Output classes, background included.
        points_mm: (N, 3).
    """
    size = np.array(grid.shape)
    position = np.clip(grid.mm_to_voxel(points_mm), 0, size - 1)
    low = np.minimum(position.astype(int), np.maximum(size - 2, 0))
    fraction = position - low
    out = np.zeros((len(points_mm), classes), np.float32)
    start = 0
    for part in parts:
        probabilities = part.cpu().numpy()
        for up in range(2):  # each slice contributes separately, so that the previous slab is not needed
            k = np.minimum(low[:, 2] + up, size[2] - 1)
            here = np.flatnonzero((k >= start) & (k < start + probabilities.shape[-1]))
            for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
                corner = np.array((di, dj, up))
                weight = np.where(corner, fraction[here], 1 - fraction[here]).prod(1).astype(np.float32)
                i, j = (np.minimum(low[here, axis] + corner[axis], size[axis] - 1) for axis in (0, 1))
                out[here] += (probabilities[:, i, j, k[here] - start] * weight).T
        start += probabilities.shape[-1]
    return out
