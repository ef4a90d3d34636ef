"""Feature maps of a scan: the input of the last layer of a trained network, and its class probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from farvox.bundle import Bundle
from farvox.data.load import require_intensities
from farvox.devices import autocast_context, resolve_precision
from farvox.errors import DataError
from farvox.geometry import Grid, Resample
from farvox.io.scan import Scan
from farvox.models.features import features_and_logits
from farvox.prediction.resample_back import StreamingResampler
from farvox.prediction.sliding_window import sliding_window_inference
from farvox.preprocessing.preprocess import PreprocessedScan, preprocess, zscore_normalise
from farvox.registration.options import FeatureKind

MAX_POINTS = 400_000
"""Largest number of positions at the finest resolution, which bounds memory and time for scans of any size."""
_PENULTIMATE_WEIGHT = 0.2
"""Weight of the penultimate features among both: enough to guide the registration between the structures."""
MAX_COMPONENTS = 32
"""A larger number of features is reduced to this many principal components."""


@dataclass(frozen=True)
class ScanFeatures:
    """Feature maps over the field of view of a scan.

    Args:
        maps: (features, i, j, k) float32, on the CPU.
        grid: Grid of the maps: the scan's axes in the network's order.
    """

    maps: torch.Tensor
    grid: Grid

    def at_spacing(self, mm: float) -> ScanFeatures:
        """The features averaged to a spacing of about `mm` along the axes that are finer."""
        resample = Resample.to_spacing(self.grid, np.maximum(self.grid.spacing, mm).tolist())
        return self if resample.identity else ScanFeatures(resample.apply(self.maps), resample.target)


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the features of one scan.

    Args:
        bundle: The trained network, on its device.
        scan: The scan.
        kind: Which features.

    Raises:
        DataError: The wrong number of channels, or intensities that are NaN, infinite or the same everywhere.
    """

    bundle: Bundle
    scan: Scan
    kind: FeatureKind = "both"

    def __post_init__(self) -> None:
        require_intensities(self.bundle.manifest.preprocessing.channels, self.scan.image, self.scan.path.name)

    @cached_property
    def space(self) -> PreprocessedScan:
        """The scan on the network grid."""
        return preprocess(self.scan.image, self.scan.grid, self.bundle.manifest.preprocessing)

    @property
    def finest_mm(self) -> float:
        """Smallest spacing at which the scan's field of view has at most `MAX_POINTS` positions, mm."""
        grid, mm = self.space.grid, float(self.space.grid.spacing.min())
        field_of_view_mm = np.array(grid.shape) * grid.spacing
        while np.prod(np.ceil(field_of_view_mm / np.maximum(grid.spacing, mm))) > MAX_POINTS:
            mm *= 1.05
        return mm

    def features(self, mm: float) -> ScanFeatures:
        """Features at a spacing of about `mm`, or at the spacing of the network's output if that is coarser.

        As in prediction, the network receives the whole scan, or windows whose outputs are blended slab by slab.
        """
        grid, depth = self.space.grid, self.space.grid.shape[2]
        inference = self.bundle.manifest.inference
        if inference.patch_size is None:
            # A point network is evaluated at its native stride, or at a larger one if that is fine enough.
            stride = round(mm / float(grid.spacing.min()))
            maps = self._maps(self.space.slab(0, depth)[None], stride if stride > 1 else None)[0]
            i, j, k = maps.shape[1:]
            return ScanFeatures(maps.cpu(), Resample.to_shape(grid, (i, j, k)).target).at_spacing(mm)
        window, overlap, blend = inference.patch_size, inference.overlap, inference.blend
        parts = sliding_window_inference(self._windows, self.space.slab, grid.shape, window, overlap, 1, blend)
        target = Resample.to_spacing(grid, np.maximum(grid.spacing, mm).tolist()).target
        stream = StreamingResampler(_on_cpu(parts), Resample.to_shape(grid, target.shape))
        slices = [stream.slab(k, k + 1) for k in range(target.shape[2])]
        return ScanFeatures(torch.cat(slices, -1), target)

    def _windows(self, windows: torch.Tensor) -> torch.Tensor:
        maps = self._maps(windows, 1)
        return maps if maps.shape[2:] == windows.shape[2:] else _resized(maps, windows.shape[2:])

    def _maps(self, image: torch.Tensor, stride: int | None) -> torch.Tensor:
        """(B, C, I, J, K) of network input → (B, features, i, j, k), float32."""
        device = next(self.bundle.network.parameters()).device
        image = image.to(device)
        inference = self.bundle.manifest.inference
        if inference.patch_normalization:
            image = zscore_normalise(image)
        with (
            torch.inference_mode(),
            autocast_context(resolve_precision(inference.precision, device), device),
        ):
            penultimate, logits = features_and_logits(self.bundle.network, image, stride)
        penultimate, probabilities = penultimate.float(), logits.float().softmax(1)
        if self.kind == "penultimate":
            return penultimate
        if self.kind == "probabilities":
            return probabilities
        if penultimate.shape[2:] != probabilities.shape[2:]:
            penultimate = _resized(penultimate, probabilities.shape[2:])
        return torch.cat((penultimate, probabilities), 1)


def normalise_features(
    fixed: ScanFeatures, moving: ScanFeatures, groups: Sequence[tuple[int, float]]
) -> tuple[ScanFeatures, ScanFeatures]:
    """Scale the features of both scans to unit variance, and reduce them to at most `MAX_COMPONENTS` per group.

    Each feature is divided by its standard deviation over both scans; constant features are removed. A group of more
    than `MAX_COMPONENTS` features is reduced to its first principal components over both scans.

    Args:
        fixed: Features of the fixed scan.
        moving: Features of the moving scan.
        groups: For each group of consecutive features, their number and their weight in a mean over all features.

    Raises:
        DataError: All features are constant.
    """
    counts = [count for count, _ in groups]
    parts: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for f, m, (_, weight) in zip(fixed.maps.split(counts), moving.maps.split(counts), groups, strict=True):
        both = torch.cat((f.flatten(1), m.flatten(1)), 1)
        sd = both.std(1)
        # Relative to the largest value, so that rounding errors of a constant feature do not count as variation.
        varying = sd > 1e-6 * both.abs().max().clamp_min(1e-12)
        if not varying.any():
            continue
        matrix = torch.diag(1 / sd.clamp_min(1e-12))[varying]  # (varying, features)
        if int(varying.sum()) > MAX_COMPONENTS:
            _, axes = torch.linalg.eigh(torch.cov(matrix @ both))
            matrix = axes[:, -MAX_COMPONENTS:].T @ matrix
        parts.append((torch.tensordot(matrix, f, 1), torch.tensordot(matrix, m, 1), weight / len(matrix)))
    if not parts:
        raise DataError(
            "the output of the network is constant in both scans", hint="use a bundle trained on such scans"
        )
    scale = sum(len(f) for f, _, _ in parts) / sum(len(f) * weight for f, _, weight in parts)
    fixed_maps = torch.cat([f * (scale * weight) for f, _, weight in parts])
    moving_maps = torch.cat([m * (scale * weight) for _, m, weight in parts])
    return ScanFeatures(fixed_maps, fixed.grid), ScanFeatures(moving_maps, moving.grid)


def feature_groups(kind: FeatureKind, features: int, classes: int) -> list[tuple[int, float]]:
    """The `groups` of `normalise_features` for a number of features and classes."""
    if kind != "both":
        return [(features, 1.0)]
    return [(features - classes, _PENULTIMATE_WEIGHT), (classes, 1 - _PENULTIMATE_WEIGHT)]


def _resized(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return F.interpolate(maps, size=tuple(shape), mode="trilinear", align_corners=False)


def _on_cpu(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for part in parts:
        yield part.cpu()
