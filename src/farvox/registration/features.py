"""A scan as a trained network sees it: maps of features over the scan's field of view, frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F

from farvox.bundle import Bundle
from farvox.devices import autocast_context, resolve_precision
from farvox.errors import DataError
from farvox.geometry import Grid, Resample
from farvox.io.scan import Scan
from farvox.models.features import features_and_logits
from farvox.prediction.resample_back import StreamingResampler
from farvox.prediction.sliding_window import sliding_window_inference
from farvox.preprocessing.preprocess import PreprocessedScan, preprocess, zscore_normalise

FeatureKind = Literal["hidden", "scores", "both"]
"""What enters the last layer, the probabilities that leave it, or both."""
KINDS: tuple[str, ...] = get_args(FeatureKind)

MAX_POINTS = 400_000
"""Positions of the finest level: memory and time of a registration are bounded, whatever the scan's size."""
_PENULTIMATE_WEIGHT = 0.2
"""Say of what enters the last layer where both are compared: enough to lead where no structure is, and no more."""
COMPONENTS = 32
"""Wider features are reduced to this many principal components."""


@dataclass(frozen=True)
class ScanFeatures:
    """Maps over a scan's field of view.

    Args:
        maps: (features, i, j, k) float32, on the CPU.
        grid: Where their voxels lie: the scan's axes in the network's order, evenly spread.
    """

    maps: torch.Tensor
    grid: Grid

    def at_spacing(self, mm: float) -> ScanFeatures:
        """Averaged to voxels of about `mm` along the axes that are finer than that."""
        step = Resample.to_spacing(self.grid, np.maximum(self.grid.spacing, mm).tolist())
        return self if step.identity else ScanFeatures(step.apply(self.maps), step.target)


@dataclass(frozen=True)
class FeatureExtractor:
    """How a bundle describes one scan; features are computed when asked for.

    Args:
        bundle: The trained network, on the device it is to run on.
        scan: The scan, checked.
        kind: Which features.
    """

    bundle: Bundle
    scan: Scan
    kind: FeatureKind

    @cached_property
    def space(self) -> PreprocessedScan:
        """The scan in network space."""
        return preprocess(self.scan.image, self.scan.grid, self.bundle.manifest.preprocessing)

    @property
    def finest_mm(self) -> float:
        """Smallest spacing at which the scan's field of view holds no more than `MAX_POINTS`, mm."""
        grid, mm = self.space.grid, float(self.space.grid.spacing.min())
        extent = np.array(grid.shape) * grid.spacing
        while np.prod(np.ceil(extent / np.maximum(grid.spacing, mm))) > MAX_POINTS:
            mm *= 1.05
        return mm

    def features(self, mm: float) -> ScanFeatures:
        """Features at a spacing of about `mm`, or as far apart as the network answers where that is further.

        The network sees the scan as in prediction: whole, or in windows whose answers are blended, slab by slab.
        """
        grid, depth = self.space.grid, self.space.grid.shape[2]
        if self.bundle.manifest.window is None:
            # A network that answers points is asked at its own stride, or further apart where that is fine enough.
            stride = round(mm / float(grid.spacing.min()))
            maps = self._maps(self.space.slab(0, depth)[None], stride if stride > 1 else None)[0]
            i, j, k = maps.shape[1:]
            return ScanFeatures(maps.cpu(), Resample.to_shape(grid, (i, j, k)).target).at_spacing(mm)
        patch = self.bundle.recipe.patch
        window = self.bundle.manifest.window
        parts = sliding_window_inference(self._windows, self.space.slab, grid.shape, window, 0.5, 1, patch.blend)
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
        if self.bundle.recipe.patch.normalize:
            image = zscore_normalise(image)
        with (
            torch.inference_mode(),
            autocast_context(resolve_precision(self.bundle.recipe.train.precision, device), device),
        ):
            hidden, logits = features_and_logits(self.bundle.network, image, stride)
        hidden, scores = hidden.float(), logits.float().softmax(1)
        if self.kind == "hidden":
            return hidden
        if self.kind == "scores":
            return scores
        hidden = hidden if hidden.shape[2:] == scores.shape[2:] else _resized(hidden, scores.shape[2:])
        return torch.cat((hidden, scores), 1)


def feature_extractor(bundle: Bundle, scan: Scan, kind: FeatureKind = "both") -> FeatureExtractor:
    """Check that the network can see the scan.

    Raises:
        DataError: The wrong number of channels, or intensities that are NaN, infinite or the same everywhere.
    """
    channels, name = bundle.manifest.preprocessing.channels, scan.path.name
    if len(scan.image) != len(channels):
        raise DataError(
            f"{len(scan.image)} channel(s)",
            allowed=f"{len(channels)} ({', '.join(channels)}), as the network of {bundle.path} was trained on",
            case=name,
        )
    for channel in scan.image:
        low, high = channel.min(), channel.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError("NaN or infinite intensities", allowed="finite intensities", case=name)
        if low == high:
            raise DataError(f"the scan is constant: every voxel is {low:g}", hint="export it again", case=name)
    return FeatureExtractor(bundle, scan, kind)


def normalise_features(
    fixed: ScanFeatures, moving: ScanFeatures, groups: Sequence[tuple[int, float]]
) -> tuple[ScanFeatures, ScanFeatures]:
    """Bring features of both scans to one scale, and to at most `COMPONENTS` of them.

    Each feature is divided by its standard deviation over both scans; one that is the same everywhere goes. More than
    `COMPONENTS` in a group are turned to their principal axes (of both scans together) and the first ones kept.

    Args:
        fixed: Of the fixed scan.
        moving: Of the moving scan, as many features.
        groups: Number of features that belong together, in order, and their share in a mean over all features.

    Raises:
        DataError: Every feature is the same everywhere.
    """
    counts = [count for count, _ in groups]
    parts: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for f, m, (_, share) in zip(fixed.maps.split(counts), moving.maps.split(counts), groups, strict=True):
        both = torch.cat((f.flatten(1), m.flatten(1)), 1)
        spread = both.std(1)
        kept = spread > 1e-6 * spread.max().clamp_min(1e-12)
        if not kept.any():
            continue
        matrix = torch.diag(1 / spread.clamp_min(1e-12))[kept]  # (kept, features)
        if int(kept.sum()) > COMPONENTS:
            _, axes = torch.linalg.eigh(torch.cov(matrix @ both))
            matrix = axes[:, -COMPONENTS:].T @ matrix
        parts.append((torch.tensordot(matrix, f, 1), torch.tensordot(matrix, m, 1), share / len(matrix)))
    if not parts:
        raise DataError(
            "the network answers the same everywhere in both scans", hint="take a bundle trained on such scans"
        )
    scale = sum(len(f) for f, _, _ in parts) / sum(len(f) * weight for f, _, weight in parts)
    of_fixed = torch.cat([f * (scale * weight) for f, _, weight in parts])
    of_moving = torch.cat([m * (scale * weight) for _, m, weight in parts])
    return ScanFeatures(of_fixed, fixed.grid), ScanFeatures(of_moving, moving.grid)


def feature_groups(kind: FeatureKind, features: int, classes: int) -> list[tuple[int, float]]:
    """What `normalise_features` wants to know of `features` features of a kind."""
    if kind != "both":
        return [(features, 1.0)]
    return [(features - classes, _PENULTIMATE_WEIGHT), (classes, 1 - _PENULTIMATE_WEIGHT)]


def _resized(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return F.interpolate(maps, size=tuple(shape), mode="trilinear", align_corners=False)


def _on_cpu(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for part in parts:
        yield part.cpu()
