"""`Predictor`: one or several bundles as one function from a scan to a label on that scan's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from farvox.bundle import Bundle, load_bundle
from farvox.devices import Precision, autocast_context, resolve_device, resolve_precision
from farvox.errors import BundleError, DataError, UsageError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.labels import LabelTable
from farvox.prediction.coarse_to_fine import Samples, block_sizes, coarse_to_fine_inference
from farvox.prediction.memory import plan_memory, plan_refinement
from farvox.prediction.points import (
    PointPredictions,
    PreparedScan,
    in_field_of_view,
    interpolate,
    point_probabilities,
    prepare_image,
    prepare_scan,
    supports_points,
    validate_points,
    voxel_probabilities,
)
from farvox.prediction.resample_back import StreamingResampler, argmax_labels
from farvox.prediction.sliding_window import PredictFn, sliding_window_inference
from farvox.preprocessing.preprocess import PreprocessedScan, preprocess, zscore_normalise
from farvox.types import Array, FloatArray, Shape

PointSampling = Literal["native", "adaptive", 1, 2, 4]
"""Where point networks are asked: on the grid they were built with, from coarse to fine, or at every nth voxel."""


class Predictor:
    """Segments scans with the mean score of one or several bundles.

    Args:
        bundles: Networks that know the same labels and channels.
        device: As in `resolve_device`.
        overlap: Least share that neighbouring windows have in common, 0 to below 1.
        sampling: Where `segment` asks networks that answer each point on its own. "native": on the grid they were
            built with. 1, 2 or 4: at every voxel of network space, or every second or fourth along each axis.
            "adaptive": at every fourth, and closer where classes meet.

    Attributes:
        samples: What the last `segment` with sampling="adaptive" asked for; None before.

    Raises:
        BundleError: No bundle, or labels, channels or axes differ between bundles.
        DeviceError: The device is not there.
        UsageError: A sampling that is none, or that the networks do not have.
    """

    def __init__(
        self, bundles: Sequence[Bundle], device: str = "auto", overlap: float = 0.5, sampling: PointSampling = "native"
    ) -> None:
        if not bundles:
            raise BundleError("no bundle given", allowed="one or more bundle folders")
        first = bundles[0].manifest
        for other in bundles[1:]:
            if other.manifest.label_table != first.label_table:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} know different labels", allowed="folds of one run"
                )
            if other.manifest.preprocessing.channels != first.preprocessing.channels:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} want different channels", allowed="folds of one run"
                )
            if other.manifest.preprocessing.axes != first.preprocessing.axes:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} turn scans differently", allowed="folds of one run"
                )
        self.sampling = sampling
        self.samples: Samples | None = None
        self.bundles = tuple(_sampled(bundle, sampling) for bundle in bundles)
        self.labels: LabelTable = first.label_table
        self.channels: tuple[str, ...] = first.preprocessing.channels
        self.overlap = overlap
        self.device = resolve_device(device)
        for bundle in self.bundles:
            bundle.network.to(self.device).eval()

    @classmethod
    def load(
        cls, *bundles: str | Path, device: str = "auto", overlap: float = 0.5, sampling: PointSampling = "native"
    ) -> Predictor:
        """Open one or several bundle folders.

        Raises:
            BundleError: A bundle is missing, damaged or newer than this program.
        """
        return cls([load_bundle(path) for path in bundles], device, overlap, sampling)

    @property
    def network(self) -> torch.nn.Module:
        """The first bundle's network, a plain torch module."""
        return self.bundles[0].network

    def segment(
        self,
        scan: str | Path | Scan | Array,
        affine: FloatArray | None = None,
        *,
        max_memory: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Array:
        """Label a scan.

        Args:
            scan: A file, the folder of a DICOM series, a `Scan`, or an array (I, J, K) or (C, I, J, K).
            affine: For an array: 4×4, voxel index to mm, RAS+. Left out, axes are taken as right, anterior, superior at
                the spacing the network was trained on (1 mm where it takes a fixed number of voxels).
            max_memory: Bytes the whole process may hold; None leaves it to what is free.
            progress: Told the finished share, 0 to 1.

        Returns:
            (I, J, K) label values on the scan's own grid.

        Raises:
            DataError: The scan cannot be read, or has the wrong number of channels.
            ResourceError: It does not fit into `max_memory`.
        """
        taken = self._as_scan(scan, affine)
        return self.labels.to_values(self._classes(taken, max_memory, progress))

    def open(self, scan: str | Path | Scan | Array, affine: FloatArray | None = None) -> PreparedScan:
        """Read and prepare a scan once, so that `at` answers many questions about it without delay.

        Args:
            scan: As for `segment`.
            affine: As for `segment`.

        Raises:
            DataError: As for `segment`.
        """
        return prepare_scan(self._as_scan(scan, affine), self.bundles, self.device)

    def at(
        self,
        image: str | Path | Scan | Array | PreparedScan,
        points_mm: Any,
        affine: FloatArray | None = None,
    ) -> PointPredictions:
        """What the scan shows at points: the mean answer of the bundles.

        Networks that answer each point on its own (`PointNetwork`, trained on whole scans) are asked at the points
        alone, in float32. For any other network every call costs a segmentation of the whole scan, however few the
        points: its scores are interpolated between voxel centres as they pass by, so memory stays that of a slab.

        Args:
            image: As for `segment`, or what `open` gave, which spares reading and preparing it again.
            points_mm: (N, 3) scanner coordinates, mm: right, anterior, superior, as in NIfTI affines.
            affine: As for `segment`.

        Raises:
            DataError: The scan as for `segment`, or points that are not (N, 3) finite numbers.
            UsageError: A scan that another predictor opened.
        """
        points = validate_points(points_mm)
        opened = image if isinstance(image, PreparedScan) else self.open(image, affine)
        if isinstance(image, PreparedScan) and affine is not None:
            raise UsageError("an affine for a scan that is open", hint="give the affine to open")
        if opened.bundles != self.bundles:
            raise UsageError("a scan opened by another predictor", hint="open it by the predictor that is asked")
        inside = in_field_of_view(opened.scan.grid, points)
        mean = np.zeros((int(inside.sum()), self.labels.classes), np.float32)
        if len(mean):
            for bundle, space, prepared in zip(self.bundles, opened.spaces, opened.prepared, strict=True):
                if prepared is not None:
                    wanted = torch.from_numpy(space.grid.mm_to_unit(points[inside]).astype(np.float32))
                    mean += point_probabilities(bundle.network, prepared, wanted).T.cpu().numpy()
                else:
                    parts, _ = self._sliding_window(bundle, space, None)
                    mean += interpolate(parts, space.grid, self.labels.classes, points[inside])
        probabilities = np.zeros((len(points), self.labels.classes), np.float32)
        probabilities[:, 0] = 1
        probabilities[inside] = mean / len(self.bundles)
        return PointPredictions(probabilities, inside, self.labels.to_values(probabilities.argmax(1)))

    def _as_scan(self, scan: str | Path | Scan | Array, affine: FloatArray | None) -> Scan:
        """A scan, however it is given, with the channels the networks want and finite intensities."""
        if isinstance(scan, (str, Path)):
            from farvox.io import read_scan

            scan = read_scan(Path(scan))
        if isinstance(scan, np.ndarray):
            scan = self._scan_of(scan, affine)
        if scan.image.shape[0] != len(self.channels):
            raise DataError(
                f"{scan.image.shape[0]} channel(s)",
                allowed=f"{len(self.channels)}: {', '.join(self.channels)}",
                hint="give the scan with the channels the network was trained on",
                case=scan.path.name,
            )
        if not all(np.isfinite(c.min()) and np.isfinite(c.max()) for c in scan.image):
            raise DataError("NaN or infinite intensities", allowed="finite intensities", case=scan.path.name)
        return scan

    def _scan_of(self, array: Array, affine: FloatArray | None) -> Scan:
        image = array if array.ndim == 4 else array[None]
        if image.ndim != 4:
            raise DataError(f"array of {array.ndim} dimensions", allowed="(I, J, K) or (C, I, J, K)")
        if affine is None:
            affine = np.diag([*(self.bundles[0].manifest.preprocessing.spacing or (1.0, 1.0, 1.0)), 1.0])
        i, j, k = image.shape[1:]
        return Scan(image, Grid((i, j, k), affine), Path("array"))

    def _classes(self, scan: Scan, max_memory: int | None, progress: Callable[[float], None] | None) -> Array:
        spaces = [preprocess(scan.image, scan.grid, b.manifest.preprocessing) for b in self.bundles]
        self.samples = Samples() if self.sampling == "adaptive" else None
        streams, slabs = [], []
        for bundle, space in zip(self.bundles, spaces, strict=True):
            parts, slab = self._sliding_window(bundle, space, max_memory)
            streams.append(StreamingResampler(parts, space.resample.inverse))
            slabs.append(slab)
        shape: Shape = spaces[0].orient.target.shape
        return spaces[0].orient.invert(argmax_labels(streams, shape, min(slabs), progress))

    def _sliding_window(
        self, bundle: Bundle, space: PreprocessedScan, max_memory: int | None
    ) -> tuple[Iterator[torch.Tensor], int]:
        """One network's scores, slab by slab in network space, and how many slices to reduce at once."""
        if self.samples is not None:
            return self._coarse_to_fine(bundle, space, max_memory, self.samples)
        plan = plan_memory(
            max_memory,
            bundle.network,
            len(self.channels),
            self.labels.classes,
            len(self.bundles),
            bundle.manifest.inference.patch_size or space.grid.shape,
            space.grid.shape,
            space.orient.target.shape,
            fixed=bundle.manifest.inference.patch_size is None or getattr(bundle.network, "size_dependent", False),
            piecewise=supports_points(bundle),
        )
        inference = bundle.manifest.inference
        precision = resolve_precision(inference.precision, self.device)
        predict_fn = make_predict_fn(bundle.network, self.device, precision, inference.patch_normalization)
        batch = 4 if self.device.type == "cuda" else 1
        parts = sliding_window_inference(
            predict_fn, space.slab, space.grid.shape, plan.window, self.overlap, batch, inference.blend
        )
        return parts, plan.slab

    def _coarse_to_fine(
        self, bundle: Bundle, space: PreprocessedScan, max_memory: int | None, samples: Samples
    ) -> tuple[Iterator[torch.Tensor], int]:
        shape = space.grid.shape
        plan = plan_refinement(
            max_memory,
            len(self.channels),
            self.labels.classes,
            len(self.bundles),
            shape,
            space.orient.target.shape,
        )
        ask = partial(voxel_probabilities, bundle.network, prepare_image(bundle, space, self.device))
        parts = coarse_to_fine_inference(
            ask, shape, block_sizes(space.grid.spacing.tolist()), plan.window[2], samples=samples
        )
        return parts, plan.slab


def parse_point_stride(text: str) -> PointSampling:
    """'native', 'adaptive', '1', '2' or '4' → where point networks are asked.

    Raises:
        UsageError: Not one of these.
    """
    known: dict[str, PointSampling] = {str(sampling): sampling for sampling in get_args(PointSampling)}
    if text not in known:
        raise UsageError(f"sampling '{text}'", allowed=", ".join(known))
    return known[text]


def _sampled(bundle: Bundle, sampling: PointSampling) -> Bundle:
    """The bundle with a network that answers on the wanted grid."""
    parse_point_stride(str(sampling))
    if sampling == "native":
        return bundle
    if not supports_points(bundle):
        raise UsageError(
            f"sampling '{sampling}' for {bundle.path}: its network '{bundle.manifest.model.name}' answers whole images",
            allowed="networks that answer each point on its own, trained on whole scans",
            hint="leave the sampling out",
        )
    network: Any = bundle.network
    return bundle if sampling == "adaptive" else replace(bundle, network=network.with_stride(sampling))


def make_predict_fn(
    network: torch.nn.Module, device: torch.device, precision: Precision, z_score: bool = False
) -> PredictFn:
    """A network as a function from windows (B, C, I, J, K) to class probabilities, float32.

    Args:
        network: The network.
        device: Where it is.
        precision: Its arithmetic.
        z_score: Whether each window is first brought to zero mean and unit spread by itself.
    """

    def score(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.to(device)
        with torch.inference_mode(), autocast_context(precision, device):
            return network(zscore_normalise(windows) if z_score else windows).float().softmax(1)

    return score
