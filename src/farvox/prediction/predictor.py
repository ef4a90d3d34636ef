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
from farvox.devices import Precision, arithmetic, pick_device, pick_precision
from farvox.errors import BundleError, DataError, UsageError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.labels import LabelTable
from farvox.models import model_facts
from farvox.prediction.coarse_to_fine import Samples, block_sizes, refine_scores
from farvox.prediction.memory import plan_memory, plan_refinement
from farvox.prediction.points import (
    OpenScan,
    PointAnswers,
    answers_points,
    ask_points,
    ask_voxels,
    checked_points,
    in_field_of_view,
    interpolate,
    open_scan,
    prepared_image,
)
from farvox.prediction.resample_back import ScoreStream, reduce_to_classes
from farvox.prediction.sliding_window import Scorer, stream_scores
from farvox.preprocessing.preprocess import NetworkSpace, to_network_space, z_scored
from farvox.types import Array, FloatArray, Shape

Sampling = Literal["network", "adaptive", 1, 2, 4]
"""Where point networks are asked: on the grid they were built with, from coarse to fine, or at every nth voxel."""


class Predictor:
    """Segments scans with the mean score of one or several bundles.

    Args:
        bundles: Networks that know the same labels and channels.
        device: As in `pick_device`.
        overlap: Least share that neighbouring windows have in common, 0 to below 1.
        sampling: Where `segment` asks networks that answer each point on its own. "network": on the grid they were
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
        self, bundles: Sequence[Bundle], device: str = "auto", overlap: float = 0.5, sampling: Sampling = "network"
    ) -> None:
        if not bundles:
            raise BundleError("no bundle given", allowed="one or more bundle folders")
        first = bundles[0].manifest
        for other in bundles[1:]:
            if other.manifest.label_table != first.label_table:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} know different labels", allowed="folds of one run"
                )
            if other.manifest.preparation.channels != first.preparation.channels:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} want different channels", allowed="folds of one run"
                )
            if other.manifest.preparation.axes != first.preparation.axes:
                raise BundleError(
                    f"{other.path} and {bundles[0].path} turn scans differently", allowed="folds of one run"
                )
        self.sampling = sampling
        self.samples: Samples | None = None
        self.bundles = tuple(_sampled(bundle, sampling) for bundle in bundles)
        self.labels: LabelTable = first.label_table
        self.channels: tuple[str, ...] = first.preparation.channels
        self.overlap = overlap
        self.device = pick_device(device)
        for bundle in self.bundles:
            bundle.network.to(self.device).eval()

    @classmethod
    def load(
        cls, *bundles: str | Path, device: str = "auto", overlap: float = 0.5, sampling: Sampling = "network"
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
        taken = self._take(scan, affine)
        return self.labels.to_values(self._classes(taken, max_memory, progress))

    def open(self, scan: str | Path | Scan | Array, affine: FloatArray | None = None) -> OpenScan:
        """Read and prepare a scan once, so that `at` answers many questions about it without delay.

        Args:
            scan: As for `segment`.
            affine: As for `segment`.

        Raises:
            DataError: As for `segment`.
        """
        return open_scan(self._take(scan, affine), self.bundles, self.device)

    def at(
        self,
        image: str | Path | Scan | Array | OpenScan,
        points_mm: Any,
        affine: FloatArray | None = None,
    ) -> PointAnswers:
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
        points = checked_points(points_mm)
        opened = image if isinstance(image, OpenScan) else self.open(image, affine)
        if isinstance(image, OpenScan) and affine is not None:
            raise UsageError("an affine for a scan that is open", remedy="give the affine to open")
        if opened.bundles != self.bundles:
            raise UsageError("a scan opened by another predictor", remedy="open it by the predictor that is asked")
        inside = in_field_of_view(opened.scan.grid, points)
        mean = np.zeros((int(inside.sum()), self.labels.classes), np.float32)
        if len(mean):
            for bundle, space, prepared in zip(self.bundles, opened.spaces, opened.prepared, strict=True):
                if prepared is not None:
                    wanted = torch.from_numpy(space.grid.normalised(points[inside]).astype(np.float32))
                    mean += ask_points(bundle.network, prepared, wanted).T.cpu().numpy()
                else:
                    parts, _ = self._stream(bundle, space, None)
                    mean += interpolate(parts, space.grid, self.labels.classes, points[inside])
        probabilities = np.zeros((len(points), self.labels.classes), np.float32)
        probabilities[:, 0] = 1
        probabilities[inside] = mean / len(self.bundles)
        return PointAnswers(probabilities, inside, self.labels.to_values(probabilities.argmax(1)))

    def _take(self, scan: str | Path | Scan | Array, affine: FloatArray | None) -> Scan:
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
                remedy="give the scan with the channels the network was trained on",
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
            affine = np.diag([*(self.bundles[0].manifest.preparation.spacing or (1.0, 1.0, 1.0)), 1.0])
        i, j, k = image.shape[1:]
        return Scan(image, Grid((i, j, k), affine), Path("array"))

    def _classes(self, scan: Scan, max_memory: int | None, progress: Callable[[float], None] | None) -> Array:
        spaces = [to_network_space(scan.image, scan.grid, b.manifest.preparation) for b in self.bundles]
        self.samples = Samples() if self.sampling == "adaptive" else None
        streams, slabs = [], []
        for bundle, space in zip(self.bundles, spaces, strict=True):
            parts, slab = self._stream(bundle, space, max_memory)
            streams.append(ScoreStream(parts, space.resample.inverse))
            slabs.append(slab)
        shape: Shape = spaces[0].orient.target.shape
        return spaces[0].orient.invert(reduce_to_classes(streams, shape, min(slabs), progress))

    def _stream(
        self, bundle: Bundle, space: NetworkSpace, max_memory: int | None
    ) -> tuple[Iterator[torch.Tensor], int]:
        """One network's scores, slab by slab in network space, and how many slices to reduce at once."""
        if self.samples is not None:
            return self._refined(bundle, space, max_memory, self.samples)
        plan = plan_memory(
            max_memory,
            bundle.network,
            len(self.channels),
            self.labels.classes,
            len(self.bundles),
            bundle.manifest.window or space.grid.shape,
            space.grid.shape,
            space.orient.target.shape,
            fixed=bundle.manifest.window is None or model_facts(bundle.manifest.model.name).relative,
            piecewise=answers_points(bundle),
        )
        precision = pick_precision(bundle.recipe.train.precision, self.device)
        patch = bundle.recipe.patch
        scorer = make_scorer(bundle.network, self.device, precision, patch.z_score)
        batch = 4 if self.device.type == "cuda" else 1
        parts = stream_scores(scorer, space.slab, space.grid.shape, plan.window, self.overlap, batch, patch.blend)
        return parts, plan.slab

    def _refined(
        self, bundle: Bundle, space: NetworkSpace, max_memory: int | None, samples: Samples
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
        ask = partial(ask_voxels, bundle.network, prepared_image(bundle, space, self.device))
        parts = refine_scores(ask, shape, block_sizes(space.grid.spacing.tolist()), plan.window[2], samples=samples)
        return parts, plan.slab


def parse_sampling(text: str) -> Sampling:
    """'network', 'adaptive', '1', '2' or '4' → where point networks are asked.

    Raises:
        UsageError: Not one of these.
    """
    known: dict[str, Sampling] = {str(sampling): sampling for sampling in get_args(Sampling)}
    if text not in known:
        raise UsageError(f"sampling '{text}'", allowed=", ".join(known))
    return known[text]


def _sampled(bundle: Bundle, sampling: Sampling) -> Bundle:
    """The bundle with a network that answers on the wanted grid."""
    parse_sampling(str(sampling))
    if sampling == "network":
        return bundle
    if not answers_points(bundle):
        raise UsageError(
            f"sampling '{sampling}' for {bundle.path}: its network '{bundle.manifest.model.name}' answers whole images",
            allowed="networks that answer each point on its own, trained on whole scans",
            remedy="leave the sampling out",
        )
    network: Any = bundle.network
    return bundle if sampling == "adaptive" else replace(bundle, network=network.with_stride(sampling))


def make_scorer(network: torch.nn.Module, device: torch.device, precision: Precision, z_score: bool = False) -> Scorer:
    """A network as a function from windows (B, C, I, J, K) to class probabilities, float32.

    Args:
        network: The network.
        device: Where it is.
        precision: Its arithmetic.
        z_score: Whether each window is first brought to zero mean and unit spread by itself.
    """

    def score(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.to(device)
        with torch.inference_mode(), arithmetic(precision, device):
            return network(z_scored(windows) if z_score else windows).float().softmax(1)

    return score
