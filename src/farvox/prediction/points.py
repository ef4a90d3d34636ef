"""Answers at any points of a scan: a point network is asked there, another network's scores are interpolated there."""

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

_POINTS_AT_ONCE = 1 << 16
"""Points answered together: 64 MB for the 256 features of each."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan read and prepared once, to be asked about many times; made by `Predictor.open`.

    Args:
        scan: The scan as it stands in its file.
        spaces: The scan in each bundle's network space.
        bundles: Those of the predictor that opened it.
        prepared: For each bundle whose network answers points, its image (1, C, I, J, K) on the device, smoothed and
            all; None for other networks.
    """

    scan: Scan
    spaces: tuple[PreprocessedScan, ...]
    bundles: tuple[Bundle, ...]
    prepared: tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class PointPredictions:
    """What is known about each of N points.

    Args:
        probabilities: (N, classes) float32, in the order of the label table; background alone outside the scan.
        inside: (N,) whether the point lies in the scan's field of view, outer faces included.
        labels: (N,) label value, as in masks, of the most probable class.
    """

    probabilities: FloatArray
    inside: Array
    labels: Array


def supports_points(bundle: Bundle) -> bool:
    """Whether a bundle's network can be asked at points: a point network that learned from whole scans."""
    return bundle.manifest.inference.patch_size is None and isinstance(bundle.network, PointNetwork)


def prepare_scan(scan: Scan, bundles: tuple[Bundle, ...], device: torch.device) -> PreparedScan:
    """Bring a scan to each bundle's network space and prepare it where the network answers points."""
    spaces = tuple(preprocess(scan.image, scan.grid, bundle.manifest.preprocessing) for bundle in bundles)
    prepared = tuple(
        prepare_image(bundle, space, device) if supports_points(bundle) else None
        for bundle, space in zip(bundles, spaces, strict=True)
    )
    return PreparedScan(scan, spaces, bundles, prepared)


def prepare_image(bundle: Bundle, space: PreprocessedScan, device: torch.device) -> torch.Tensor:
    """(1, C, I, J, K): the whole scan as a point network reads it."""
    network: Any = bundle.network
    image = space.slab(0, space.grid.shape[2])[None].to(device)
    with torch.inference_mode():
        normalize = bundle.manifest.inference.patch_normalization
        prepared: torch.Tensor = network.prepare(zscore_normalise(image) if normalize else image)
    return prepared


def validate_points(points_mm: Any) -> FloatArray:
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
    """(N,) whether each point lies between the outer faces of a grid; a point on a face counts, rounding aside."""
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
        parts = [network.forward_points(prepared, part[None])[0].softmax(0) for part in points.split(_POINTS_AT_ONCE)]
    return torch.cat(parts, 1)


def voxel_probabilities(network: Any, prepared: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """As `point_probabilities`, for places (N, 3) in voxels, whole or between them."""
    return point_probabilities(network, prepared, (2 * places + 1) / torch.tensor(prepared.shape[2:]) - 1)


def interpolate(parts: Iterator[torch.Tensor], grid: Grid, classes: int, points_mm: FloatArray) -> FloatArray:
    """(N, classes) probabilities, trilinear between scores that arrive slab by slab; edges are continued outward.

    Args:
        parts: (classes, I, J, n) along K of `grid`, as from `sliding_window_inference`.
        grid: Network space.
        classes: Classes of the answer.
        points_mm: (N, 3).
    """
    size = np.array(grid.shape)
    place = np.clip(grid.mm_to_voxel(points_mm), 0, size - 1)
    low = np.minimum(place.astype(int), np.maximum(size - 2, 0))
    share = place - low
    out = np.zeros((len(points_mm), classes), np.float32)
    start = 0
    for part in parts:
        scores = part.cpu().numpy()
        for up in range(2):  # each slice gives its share alone, so nothing of the slab before is needed
            k = np.minimum(low[:, 2] + up, size[2] - 1)
            here = np.flatnonzero((k >= start) & (k < start + scores.shape[-1]))
            for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
                corner = np.array((di, dj, up))
                weight = np.where(corner, share[here], 1 - share[here]).prod(1).astype(np.float32)
                i, j = (np.minimum(low[here, axis] + corner[axis], size[axis] - 1) for axis in (0, 1))
                out[here] += (scores[:, i, j, k[here] - start] * weight).T
        start += scores.shape[-1]
    return out
