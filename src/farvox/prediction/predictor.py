"""`Predictor`: segments scans with one or several bundles, on the scans' own grids."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from farvox.bundle import Bundle, load_bundle
from farvox.data import CasePaths
from farvox.data.load import read_scan_for, require_intensities
from farvox.devices import Precision, autocast_context, resolve_device, resolve_precision
from farvox.errors import BundleError, DataError, FarvoxError, ModelError, UsageError
from farvox.io import Scan, case_id_from_path, write_mask
from farvox.io.images_2d import ImageLike, as_scan
from farvox.labels import LabelTable
from farvox.prediction.coarse_to_fine import Samples, block_sizes, coarse_to_fine_inference
from farvox.prediction.files import Prediction, find_scans, mask_file
from farvox.prediction.memory import MemoryRequest, parse_memory, plan_coarse_to_fine, plan_memory
from farvox.prediction.points import (
    PointPredictions,
    PreparedScan,
    in_field_of_view,
    interpolate_probabilities,
    point_probabilities,
    prepare_image,
    prepare_scan,
    supports_points,
    validate_points,
    voxel_probabilities,
)
from farvox.prediction.resample_back import StreamingResampler, mean_probabilities
from farvox.prediction.sliding_window import PredictFn, sliding_window_inference
from farvox.preprocessing.preprocess import PreprocessedScan, preprocess, zscore_normalise
from farvox.progress import Progress, as_callback, resolve_progress
from farvox.types import Array, FloatArray, PathLike, Shape

PointStride = Literal["native", "adaptive", 1, 2, 4]
"""Where point networks are evaluated: at their own stride, from coarse to fine, or at every nth voxel."""
ScanLike: TypeAlias = ImageLike | Sequence[PathLike] | PreparedScan
"""What `Predictor` accepts as a scan."""


class Predictor:
    """Segments scans with the mean probabilities of one or several bundles.

    Scans can be given as

    * a file, the folder of a DICOM series, or a list of one file a channel,
    * a nibabel image or a SimpleITK image,
    * a numpy array or a torch tensor (I, J, K) or (C, I, J, K), with its affine,
    * a `Scan`, or what `prepare` returned.

    An `affine` is given for arrays and tensors only: 4×4, voxel index to mm, RAS+ (as in nibabel).

    >>> predictor = Predictor.load("runs/hippo")  # doctest: +SKIP
    >>> mask = predictor.segment("scan.nii.gz")  # doctest: +SKIP
    >>> mask = predictor.segment(image.get_fdata(), image.affine)  # doctest: +SKIP

    Args:
        bundles: Networks with the same labels and channels, such as the folds of a run.
        device: As in `farvox.devices.resolve_device`.
        overlap: Smallest fraction that neighbouring windows have in common, 0 to below 1; None: the bundle's own, 0.5.
        point_stride: Where `segment` evaluates point networks. "native": at the stride of the network. 1, 2 or 4: at
            every, every second or every fourth voxel along each axis. "adaptive": at every fourth voxel, and at finer
            positions where classes meet.

    Attributes:
        bundles: The bundles.
        labels: Values and names of the labels.
        channels: Names of the channels that a scan must have.
        device: Where the networks are.
        samples: Number of points evaluated by the last `segment` with point_stride="adaptive"; None before.

    Raises:
        BundleError: No bundle, or labels, channels or axes differ between bundles.
        DeviceError: The device is not available.
        UsageError: An unknown `point_stride`, or one that the networks do not support.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        device: str = "auto",
        overlap: float | None = None,
        point_stride: PointStride = "native",
        *,
        sampling: PointStride | Literal["network"] | None = None,
    ) -> None:
        if not bundles:
            raise BundleError("no bundle given", allowed="one or more bundle folders")
        point_stride = _point_stride(point_stride, sampling)
        first = bundles[0].manifest
        for other in bundles[1:]:
            manifest = other.manifest
            for what, equal in (
                ("labels", manifest.label_table == first.label_table),
                ("channels", manifest.preprocessing.channels == first.preprocessing.channels),
                ("axes", manifest.preprocessing.axes == first.preprocessing.axes),
            ):
                if not equal:
                    raise BundleError(
                        f"{other.path} and {bundles[0].path} have different {what}", allowed="folds of one run"
                    )
        if overlap is not None and not 0 <= overlap < 1:
            raise UsageError(f"overlap {overlap}", allowed="0 to below 1")
        self.point_stride: PointStride = point_stride
        self.samples: Samples | None = None
        self.bundles = tuple(_with_stride(bundle, point_stride) for bundle in bundles)
        self.labels: LabelTable = first.label_table
        self.channels: tuple[str, ...] = first.preprocessing.channels
        self.overlap = overlap
        self.device = resolve_device(device)
        for bundle in self.bundles:
            bundle.network.to(self.device).eval()

    @classmethod
    def load(
        cls,
        *paths: PathLike | Iterable[PathLike],
        device: str = "auto",
        overlap: float | None = None,
        point_stride: PointStride = "native",
        trust_code: bool = False,
        sampling: PointStride | Literal["network"] | None = None,
    ) -> Predictor:
        """Load bundles from their folders, or all folds of a run.

        Args:
            *paths: Folders of bundles or runs, or lists of them.
            device: As for the class.
            overlap: As for the class.
            point_stride: As for the class.
            trust_code: Import the module of an own network ("package.module:function") that a manifest names.
            sampling: Former name of `point_stride`.

        Raises:
            BundleError: A bundle is missing, damaged, newer than this program, or needs `trust_code`.
        """
        point_stride = _point_stride(point_stride, sampling)
        flat: list[PathLike] = []
        for item in paths:
            flat.extend([item] if isinstance(item, (str, os.PathLike)) else item)
        folders = [folder for path in flat for folder in _bundle_folders(Path(path))]
        bundles = [load_bundle(folder, trust_code=trust_code) for folder in folders]
        return cls(bundles, device, overlap, point_stride)

    def __repr__(self) -> str:
        networks = ", ".join(dict.fromkeys(bundle.manifest.model.name for bundle in self.bundles))
        names = [name for _, _, name in self.labels.foreground]
        shown = ", ".join(names[:5]) + ", …" * (len(names) > 5)
        parts = (
            _plural(len(self.bundles), "bundle", networks),
            _plural(len(self.channels), "channel", ", ".join(self.channels)),
            _plural(len(names), "label", shown),
        )
        return f"Predictor: {', '.join(parts)}, {self.device}"

    @property
    def network(self) -> torch.nn.Module:
        """The network of the first bundle, a plain torch module."""
        return self.bundles[0].network

    def segment(
        self,
        scan: ScanLike,
        affine: FloatArray | None = None,
        *,
        max_memory: str | int | None = None,
        progress: Progress | bool | None = None,
    ) -> Array:
        """Segment a scan.

        Args:
            scan: See the class.
            affine: For an array: 4×4, voxel index to mm, RAS+.
            max_memory: Largest size of the process, such as "2G" or a number of bytes; None: what is free.
            progress: See `farvox.progress.resolve_progress`.

        Returns:
            (I, J, K) label values on the scan's own grid.

        Raises:
            DataError: The scan cannot be read, has the wrong number of channels, or intensities that are not finite.
            ResourceError: It does not fit into `max_memory`.
        """
        taken, spaces, prepared = self._preprocess(scan, affine)
        out = np.zeros(spaces[0].orient.target.shape, np.uint8)
        for part, probabilities in self._probabilities(taken, spaces, prepared, 2, max_memory, progress):
            out[..., part] = probabilities.argmax(0).to(torch.uint8).cpu().numpy()
        return self.labels.to_values(spaces[0].orient.invert(out))

    def predict_probabilities(
        self,
        scan: ScanLike,
        affine: FloatArray | None = None,
        *,
        max_memory: str | int | None = None,
        progress: Progress | bool | None = None,
    ) -> FloatArray:
        """Class probabilities on the scan's own grid; the largest one of a voxel gives the label of `segment`.

        Args:
            scan: As for `segment`, like the other arguments.
            affine: See `segment`.
            max_memory: See `segment`.
            progress: See `segment`.

        Returns:
            (classes, I, J, K) float32, in the order of `labels`, background first.

        Raises:
            DataError: As for `segment`.
            ResourceError: As for `segment`.
        """
        taken, spaces, prepared = self._preprocess(scan, affine)
        out = np.zeros((self.labels.classes, *spaces[0].orient.target.shape), np.float32)
        for part, probabilities in self._probabilities(
            taken, spaces, prepared, 4 * self.labels.classes, max_memory, progress
        ):
            out[..., part] = probabilities.cpu().numpy()
        return spaces[0].orient.invert(out)

    def segment_to_file(
        self,
        scan: ScanLike,
        out: PathLike,
        affine: FloatArray | None = None,
        *,
        max_memory: str | int | None = None,
        progress: Progress | bool | None = None,
    ) -> Path:
        """Segment a scan and write the mask with the scan's grid and header.

        Args:
            scan: As for `segment`, like the further arguments.
            out: Where to; the suffix decides the format (.nii, .nii.gz, .mha, .mhd, .nrrd).
            affine: See `segment`.
            max_memory: See `segment`.
            progress: See `segment`.

        Returns:
            The path of the mask.

        Raises:
            DataError: As for `segment`, or the mask would replace the scan.
            ResourceError: As for `segment`, or the disk is full.
        """
        prepared = scan if isinstance(scan, PreparedScan) else self._as_scan(scan, affine)
        source = prepared.scan if isinstance(prepared, PreparedScan) else prepared
        path = Path(out)
        if path.resolve() == source.path.resolve():
            raise DataError("the mask would replace its scan", hint="choose another path or folder for masks")
        write_mask(path, self.segment(prepared, max_memory=max_memory, progress=progress), source)
        return path

    def segment_files(
        self,
        scans: PathLike | Iterable[PathLike | CasePaths],
        out_dir: PathLike,
        *,
        max_memory: str | int | None = None,
        progress: Progress | bool | None = None,
    ) -> Iterator[Prediction]:
        """Segment scans one after the other, and write each mask under its scan's name; errors do not stop the rest.

        >>> for prediction in predictor.segment_files("scans", "masks"):  # doctest: +SKIP
        ...     print(prediction.case, prediction.volumes_ml or prediction.error)

        Args:
            scans: Files, DICOM folders or folders of scans. Files `<scan>_0000`, `<scan>_0001`, … or
                `<scan>_<channel name>` are the channels of one scan, if the networks have several.
            out_dir: Folder for the masks; it is created if it is missing.
            max_memory: See `segment`.
            progress: See `segment`.

        Returns:
            An iterator; each scan is segmented when its `Prediction` is requested.

        Raises:
            DataError: A path is not a scan, or two scans have the same name.
        """
        items = [scans] if isinstance(scans, (str, os.PathLike)) else list(scans)
        paths = [Path(item) for item in items if not isinstance(item, CasePaths)]
        cases = [item for item in items if isinstance(item, CasePaths)]
        cases += find_scans(paths, self.channels) if paths else []
        limit = None if max_memory is None else parse_memory(max_memory)
        return self._segment_cases(cases, Path(out_dir), limit, resolve_progress(progress))

    def prepare(self, scan: ScanLike, affine: FloatArray | None = None) -> PreparedScan:
        """Read and preprocess a scan once, for many calls of `predict_points`.

        Args:
            scan: As for `segment`.
            affine: See `segment`.

        Raises:
            DataError: As for `segment`.
        """
        if isinstance(scan, PreparedScan):
            self._require_own(scan, affine)
            return scan
        return prepare_scan(self._as_scan(scan, affine), self.bundles, self.device)

    def predict_points(self, scan: ScanLike, points_mm: object, affine: FloatArray | None = None) -> PointPredictions:
        """Mean probabilities of the bundles at points.

        Point networks (`PointNetwork`, trained on whole scans) are evaluated at the points only, in float32. With any
        other network, each call takes as long as the segmentation of the whole scan: its probabilities are interpolated
        between voxel centres slab by slab.

        Args:
            scan: As for `segment`; the result of `prepare` saves the preprocessing.
            points_mm: (N, 3) scanner coordinates, mm: right, anterior, superior, as in NIfTI affines.
            affine: See `segment`.

        Raises:
            DataError: As for `segment`, or the points are not (N, 3) finite numbers.
            UsageError: The scan was prepared by another predictor.
        """
        points = validate_points(points_mm)
        prepared = self.prepare(scan, affine)
        inside = in_field_of_view(prepared.scan.grid, points)
        mean = np.zeros((int(inside.sum()), self.labels.classes), np.float32)
        if len(mean):
            for bundle, space, image in zip(self.bundles, prepared.spaces, prepared.prepared, strict=True):
                if image is not None:
                    units = torch.from_numpy(space.grid.mm_to_unit(points[inside]).astype(np.float32))
                    mean += point_probabilities(bundle.network, image, units).T.cpu().numpy()
                else:
                    request = self._memory_request(space, prepared.scan, None, 0)
                    parts, _ = self._sliding_window(bundle, space, request)
                    mean += interpolate_probabilities(parts, space.grid, self.labels.classes, points[inside])
        probabilities = np.zeros((len(points), self.labels.classes), np.float32)
        probabilities[:, 0] = 1
        probabilities[inside] = mean / len(self.bundles)
        return PointPredictions(probabilities, inside, self.labels.to_values(probabilities.argmax(1)))

    def open(self, scan: ScanLike, affine: FloatArray | None = None) -> PreparedScan:
        """Former name of `prepare`."""
        warnings.warn("Predictor.open is now Predictor.prepare", DeprecationWarning, stacklevel=2)
        return self.prepare(scan, affine)

    def at(self, image: ScanLike, points_mm: object, affine: FloatArray | None = None) -> PointPredictions:
        """Former name of `predict_points`."""
        warnings.warn("Predictor.at is now Predictor.predict_points", DeprecationWarning, stacklevel=2)
        return self.predict_points(image, points_mm, affine)

    def _as_scan(self, scan: ImageLike | Sequence[PathLike], affine: FloatArray | None) -> Scan:
        """The scan in memory, with the channels of the networks and valid intensities."""
        if affine is not None and (
            isinstance(scan, (str, os.PathLike, list, tuple, Scan))
            or hasattr(scan, "GetSize")
            or hasattr(scan, "dataobj")
        ):
            raise UsageError("an affine for a scan that has one", hint="give an affine with an array only")
        if isinstance(scan, (str, os.PathLike)):
            read = read_scan_for(self.channels, [scan])
        elif isinstance(scan, (list, tuple)):
            if not all(isinstance(path, (str, os.PathLike)) for path in scan):
                hint = "give one file a channel; for an array, use segment(array, affine)"
                raise UsageError("a list that is not of paths", hint=hint)
            read = read_scan_for(self.channels, scan)
        else:
            read = as_scan(scan, affine)  # type: ignore[arg-type]
        require_intensities(self.channels, read.image, case_id_from_path(read.path))
        return read

    def _require_own(self, scan: PreparedScan, affine: FloatArray | None) -> None:
        if affine is not None:
            raise UsageError("an affine for a prepared scan", hint="give the affine to prepare")
        if scan.bundles != self.bundles:
            raise UsageError("a scan prepared by another predictor", hint="prepare it with this predictor")

    def _preprocess(
        self, scan: ScanLike, affine: FloatArray | None
    ) -> tuple[Scan, tuple[PreprocessedScan, ...], tuple[torch.Tensor | None, ...]]:
        if isinstance(scan, PreparedScan):
            self._require_own(scan, affine)
            return scan.scan, scan.spaces, scan.prepared
        read = self._as_scan(scan, affine)
        spaces = tuple(preprocess(read.image, read.grid, bundle.manifest.preprocessing) for bundle in self.bundles)
        return read, spaces, (None,) * len(spaces)

    def _probabilities(
        self,
        scan: Scan,
        spaces: Sequence[PreprocessedScan],
        prepared: Sequence[torch.Tensor | None],
        output_bytes: int,
        max_memory: str | int | None,
        progress: Progress | bool | None,
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Mean probabilities on the canonical grid, slab by slab."""
        limit = None if max_memory is None else parse_memory(max_memory)
        self.samples = Samples() if self.point_stride == "adaptive" else None
        streams, slabs = [], []
        for bundle, space, image in zip(self.bundles, spaces, prepared, strict=True):
            request = self._memory_request(space, scan, limit, output_bytes)
            if self.samples is not None:
                parts, slab = self._coarse_to_fine(bundle, space, request, image, self.samples)
            else:
                parts, slab = self._sliding_window(bundle, space, request)
            streams.append(StreamingResampler(parts, space.resample.inverse))
            slabs.append(slab)
        callback = as_callback(resolve_progress(progress), f"segment {case_id_from_path(scan.path)}")
        return mean_probabilities(streams, spaces[0].orient.target.shape[2], min(slabs), callback)

    def _memory_request(
        self, space: PreprocessedScan, scan: Scan, limit: int | None, output_bytes: int
    ) -> MemoryRequest:
        grid, target = space.grid.shape, space.orient.target.shape
        channels, classes = len(self.channels), self.labels.classes
        return MemoryRequest(limit, channels, classes, len(self.bundles), grid, target, output_bytes)

    def _sliding_window(
        self, bundle: Bundle, space: PreprocessedScan, request: MemoryRequest
    ) -> tuple[Iterator[torch.Tensor], int]:
        """Probabilities of one network on its grid, slab by slab, and how many slices to resample at a time."""
        inference = bundle.manifest.inference
        plan = plan_memory(
            request,
            bundle.network,
            inference.patch_size or space.grid.shape,
            fixed_window=inference.patch_size is None or getattr(bundle.network, "size_dependent", False),
            chunked=supports_points(bundle),
        )
        precision = resolve_precision(inference.precision, self.device)
        predict = make_predict_fn(
            bundle.network, self.device, precision, inference.patch_normalization, self.labels.classes
        )
        batch = 4 if self.device.type == "cuda" else 1
        overlap = inference.overlap if self.overlap is None else self.overlap
        parts = sliding_window_inference(
            predict, space.slab, space.grid.shape, plan.window, overlap, batch, inference.blend
        )
        return parts, plan.slab

    def _coarse_to_fine(
        self,
        bundle: Bundle,
        space: PreprocessedScan,
        request: MemoryRequest,
        image: torch.Tensor | None,
        samples: Samples,
    ) -> tuple[Iterator[torch.Tensor], int]:
        plan = plan_coarse_to_fine(request)
        image = prepare_image(bundle, space, self.device) if image is None else image
        evaluate = partial(voxel_probabilities, bundle.network, image)
        levels: list[Shape] = block_sizes(space.grid.spacing.tolist())
        parts = coarse_to_fine_inference(evaluate, space.grid.shape, levels, plan.window[2], samples=samples)
        return parts, plan.slab

    def _segment_cases(
        self, cases: Sequence[CasePaths], out: Path, max_memory: int | None, progress: Progress
    ) -> Iterator[Prediction]:
        for case in cases:
            start = time.monotonic()
            try:
                scan = read_scan_for(self.channels, case.images, case.id)
                require_intensities(self.channels, scan.image, case.id)
                path = out / mask_file(case)
                if path.resolve() == case.images[0].resolve():
                    raise DataError("the mask would replace its scan", hint="choose another folder for --out")
                values = self.segment(scan, max_memory=max_memory, progress=progress)
                write_mask(path, values, scan)
                volumes = {
                    name: float((values == value).sum()) * scan.grid.voxel_ml
                    for _, value, name in self.labels.foreground
                }
                fraction = self.samples.fraction if self.samples else None
                seconds = time.monotonic() - start
                yield Prediction(case.id, path, None, seconds, volumes, fraction, scan.notes)
            except FarvoxError as error:
                error.case = error.case or case.id
                progress.update(f"segment {case.id}", 1.0)
                yield Prediction(case.id, None, str(error), time.monotonic() - start, {})


def parse_point_stride(text: str) -> PointStride:
    """Convert "native", "adaptive", "1", "2" or "4".

    Raises:
        UsageError: Another text.
    """
    strides: dict[str, PointStride] = {str(stride): stride for stride in get_args(PointStride)}
    if text not in strides:
        raise UsageError(f"point stride '{text}'", allowed=", ".join(strides))
    return strides[text]


def make_predict_fn(
    network: torch.nn.Module,
    device: torch.device,
    precision: Precision,
    normalize: bool = False,
    classes: int | None = None,
) -> PredictFn:
    """Turn a network into a function from windows (B, C, I, J, K) to class probabilities, float32.

    Args:
        network: The network, on `device`.
        device: Where windows are moved to.
        precision: Number format of the arithmetic.
        normalize: Normalise each window to zero mean and unit variance.
        classes: Expected number of output classes; None: any.

    Raises:
        ModelError: From the function, if the output is not (B, classes, I, J, K).
    """

    def predict(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.to(device)
        with torch.inference_mode(), autocast_context(precision, device):
            logits = network(zscore_normalise(windows) if normalize else windows)
            shape = tuple(getattr(logits, "shape", ()))
            expected = (len(windows), classes or (*shape, 0, 0)[1], *windows.shape[2:])
            if shape != expected:
                returned = shape or type(logits).__name__
                raise ModelError(
                    f"{type(network).__name__} returns {returned} for an image {tuple(windows.shape)}",
                    allowed=f"logits {expected}: (B, classes, I, J, K)",
                )
            probabilities: torch.Tensor = logits.float().softmax(1)
            return probabilities

    return predict


def _point_stride(stride: PointStride, former: PointStride | Literal["network"] | None) -> PointStride:
    """The stride, or the one that was given by the former keyword `sampling`."""
    if former is None:
        return stride
    warnings.warn("sampling=... of Predictor is now point_stride=...", DeprecationWarning, stacklevel=3)
    return "native" if former == "network" else former


def _with_stride(bundle: Bundle, stride: PointStride) -> Bundle:
    """The bundle with a network that is evaluated at a stride."""
    parse_point_stride(str(stride))
    if stride == "native":
        return bundle
    network: Any = bundle.network
    if not supports_points(bundle):
        name = bundle.manifest.model.name
        raise UsageError(
            f"point stride '{stride}' for {bundle.path}: its network '{name}' does not support points",
            allowed="point networks that were trained on whole scans",
            hint="use the point stride 'native'",
        )
    return bundle if stride == "adaptive" else replace(bundle, network=network.with_stride(stride))


def _bundle_folders(path: Path) -> list[Path]:
    """The bundles of a run or of one of its folds; any other path as it is."""
    if (path / "manifest.json").exists():
        return [path]
    folds = [*path.glob("bundle/manifest.json"), *path.glob("fold-*/bundle/manifest.json")]
    return sorted((file.parent for file in folds), key=lambda folder: (len(str(folder)), folder)) or [path]


def _plural(number: int, what: str, names: str) -> str:
    return f"{number} {what}{'s' * (number != 1)} ({names})"
