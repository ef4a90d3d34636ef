"""`register`: two scans and a trained network in, a displacement field out; and the use of the field."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from farvox._tables import table_html
from farvox.data.load import read_scan_for
from farvox.errors import DataError, UsageError
from farvox.io.images_2d import ImageLike, as_scan
from farvox.io.itk import LPS_TO_RAS, Placement
from farvox.io.scan import Scan
from farvox.ops.warp import warp
from farvox.prediction import Predictor
from farvox.prediction.files import find_scans
from farvox.prediction.points import validate_points
from farvox.progress import Progress, as_callback, resolve_progress
from farvox.registration.features import FeatureExtractor, feature_groups, normalise_features
from farvox.registration.field import Displacement
from farvox.registration.initial import (
    initial_from_centres,
    initial_from_headers,
    initial_from_search,
    overlap_fraction,
)
from farvox.registration.metrics import (
    DisplacementStatistics,
    FeatureDistance,
    RegistrationMetrics,
    jacobian_determinant,
    jacobian_statistics,
)
from farvox.registration.optimise import optimise
from farvox.registration.options import FeatureKind, InitialTransform, RegisterOptions
from farvox.types import Array, FloatArray, PathLike

if TYPE_CHECKING:
    import SimpleITK
    from matplotlib.figure import Figure
    from rich.table import Table

    from farvox.geometry import Grid

_RESOLUTIONS = (4, 2, 1)
"""Spacing of the features at each resolution, in multiples of the finest."""
_SLAB_VOXELS = 1 << 20
_INVERSE_ITERATIONS, _INVERSE_TOLERANCE_MM = 50, 1e-3


@dataclass(frozen=True, repr=False)
class Registration:
    """A displacement field from the fixed to the moving scan, and what it does to images, labels and points.

    Args:
        fixed: The fixed scan.
        moving: The moving scan.
        field: (3, I, J, K) float32: x + field(x) is the position in the moving scan of voxel x of the fixed scan, mm,
            RAS+.
        initial_mm: (3,) the initial translation, which is part of the field, mm, RAS+.
        distances: Feature distance before and after the optimisation at each resolution.
        seconds: Time of the features and of the optimisation.
        bundle: Path of the network's bundle.
        network: Name of the network.
        options: Options of the registration.
    """

    fixed: Scan
    moving: Scan
    field: FloatArray
    initial_mm: FloatArray
    distances: tuple[FeatureDistance, ...]
    seconds: dict[str, float]
    bundle: Path
    network: str
    options: RegisterOptions

    @property
    def grid(self) -> Grid:
        """Grid of the fixed scan and of the field."""
        return self.fixed.grid

    @property
    def deformable_field(self) -> FloatArray:
        """(3, I, J, K) mm, RAS+: the field without the initial translation."""
        return self.field - self.initial_mm.astype(np.float32)[:, None, None, None]

    @property
    def initial_only(self) -> Registration:
        """The registration with its initial translation only."""
        translation = self.initial_mm.astype(np.float32)[:, None, None, None]
        return replace(self, field=np.broadcast_to(translation, self.field.shape))

    @cached_property
    def metrics(self) -> RegistrationMetrics:
        """Displacement, overlap and folding."""
        length = np.sqrt((self.deformable_field**2).sum(0))
        x, y, z = (round(float(mm), 4) for mm in self.initial_mm)
        return RegistrationMetrics(
            fixed=str(self.fixed.path.resolve()),
            moving=str(self.moving.path.resolve()),
            bundle=str(self.bundle),
            network=self.network,
            options=self.options,
            initial_mm=(x, y, z),
            overlap_fraction=overlap_fraction(self.grid, self.moving.grid, self.initial_mm),
            displacement_mm=DisplacementStatistics(mean=float(length.mean()), max=float(length.max())),
            jacobian=jacobian_statistics(jacobian_determinant(self.field, self.grid)),
            feature_distance=self.distances,
            seconds={part: round(seconds, 3) for part, seconds in self.seconds.items()},
        )

    def warp_image(self, image: ImageLike | None = None, affine: FloatArray | None = None) -> FloatArray:
        """Resample an image from the space of the moving scan to the grid of the fixed scan, linearly.

        Args:
            image: A path, a `Scan`, a nibabel or SimpleITK image, or an array (I, J, K) or (C, I, J, K). None: the
                moving scan.
            affine: For an array: 4×4, voxel index to mm, RAS+. None: the grid of the moving scan.

        Returns:
            (I, J, K) float32, or (C, I, J, K) if the image has several channels. Voxels from outside the image have the
            smallest value of their channel.
        """
        scan = self._moving_image(image, affine)
        warped = self.warp_channels(scan.image, scan.grid)
        return warped[0] if len(warped) == 1 else warped

    def warp_labels(self, labels: ImageLike, affine: FloatArray | None = None) -> Array:
        """Propagate labels from the moving to the fixed scan by nearest-neighbour interpolation.

        Args:
            labels: Label values, as an image for `warp_image`.
            affine: As for `warp_image`.

        Returns:
            (I, J, K) label values in the type of the input; 0 for voxels from outside.
        """
        scan = self._moving_image(labels, affine)
        values, last = scan.image[0], np.array(scan.grid.shape) - 1
        out = np.zeros(self.grid.shape, dtype=values.dtype)
        for slices, points in self._slabs():
            voxels = np.floor(scan.grid.mm_to_voxel(points) + 0.5).astype(np.int64)
            inside = ((voxels >= 0) & (voxels <= last)).all(1)
            i, j, k = np.clip(voxels, 0, last).T
            out[..., slices] = np.where(inside, values[i, j, k], 0).reshape(out[..., slices].shape)
        return out

    def warp_points(self, points_mm: FloatArray | Sequence[Sequence[float]], *, inverse: bool = False) -> FloatArray:
        """Map points of the fixed scan to the moving scan, as `SimpleITK.Transform.TransformPoint` does.

        The field is interpolated linearly, and is constant beyond the outermost voxels.

        Args:
            points_mm: (N, 3) mm, RAS+.
            inverse: Map points of the moving scan to the fixed scan, by fixed-point iteration. The result is exact
                where the field does not fold.

        Returns:
            (N, 3) mm, RAS+.
        """
        points = validate_points(points_mm)
        if not inverse:
            return points + self._displacement_at(points)
        mapped = points - self.initial_mm
        for _ in range(_INVERSE_ITERATIONS):
            previous, mapped = mapped, points - self._displacement_at(mapped)
            if np.abs(mapped - previous).max(initial=0) < _INVERSE_TOLERANCE_MM:
                break
        return mapped

    def to_sitk(self) -> SimpleITK.DisplacementFieldTransform:
        """The field as a SimpleITK transform, for `SimpleITK.Resample(moving, fixed, transform)`; 2D for 2D images."""
        sitk: Any = import_module("SimpleITK")  # its functions have no types
        transform: SimpleITK.DisplacementFieldTransform = sitk.DisplacementFieldTransform(
            sitk.Cast(self.field_image(), sitk.sitkVectorFloat64)
        )
        return transform

    def field_image(self) -> SimpleITK.Image:
        """The field as a SimpleITK image: float32 vectors in mm along left, posterior and superior (x and y in 2D)."""
        import SimpleITK as sitk

        lps = np.moveaxis(self.field, 0, -1) * np.diag(LPS_TO_RAS)[:3].astype(np.float32)  # (I, J, K, 3)
        header = self.fixed.header
        placement = header if isinstance(header, Placement) else Placement.from_grid(self.grid)
        two_dimensional = len(placement.spacing) == 2
        vectors = lps[:, :, 0, :2].swapaxes(0, 1) if two_dimensional else lps.swapaxes(0, 2)
        image: Any = sitk.GetImageFromArray(np.ascontiguousarray(vectors, dtype=np.float32), isVector=True)
        image.SetSpacing(placement.spacing)
        image.SetOrigin(placement.origin)
        image.SetDirection(placement.direction)
        field: SimpleITK.Image = image
        return field

    def show(self, fixed_labels: ImageLike | None = None, moving_labels: ImageLike | None = None) -> Figure:
        """A figure with the differences before and after, the labels if given, and the displacement field.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from farvox.registration.figure import registration_figure

        propagated = None
        if moving_labels is not None:
            propagated = self.initial_only.warp_labels(moving_labels), self.warp_labels(moving_labels)
        before, after = (r.warp_channels(self.moving.image[:1], self.moving.grid)[0] for r in (self.initial_only, self))
        return registration_figure(
            self.fixed.image[0],
            before,
            after,
            self.deformable_field,
            self.grid,
            inside=self.warp_labels(np.ones(self.moving.grid.shape, np.uint8)).astype(bool),
            fixed_labels=None if fixed_labels is None else as_scan(fixed_labels, self.grid.affine).image[0],
            labels=propagated,
        )

    def table(self) -> Table:
        """A `rich` table of the metrics."""
        return self.metrics.table()

    def __repr__(self) -> str:
        return f"Registration({self.moving.path.name} → {self.fixed.path.name}: {self.metrics})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{table_html(self.table())}"

    def warp_channels(self, image: Array, grid: Grid) -> FloatArray:
        """`warp_image` for an array (C, I, J, K) on a grid; returns (C, I, J, K) float32."""
        out = np.empty((len(image), *self.grid.shape), dtype=np.float32)
        for channel, target in zip(image, out, strict=True):
            maps = torch.from_numpy(np.array(channel, dtype=np.float32, order="C"))[None, None]
            fill = float(maps.min())
            for slices, positions in self._slabs():
                points = torch.from_numpy(grid.mm_to_unit(positions)).float()[None]
                target[..., slices] = warp(maps, points, fill=fill)[0, 0].reshape(target[..., slices].shape).numpy()
        return out

    def _moving_image(self, image: ImageLike | None, affine: FloatArray | None) -> Scan:
        if image is None:
            return self.moving
        scan = as_scan(image, self.moving.grid.affine if affine is None else affine)
        shape = self.moving.grid.shape
        if isinstance(image, np.ndarray) and affine is None and scan.grid.shape != shape:
            raise DataError(
                f"an array of shape {image.shape} without affine", allowed=f"the moving scan's shape, {shape}"
            )
        return scan

    def _displacement_at(self, points_mm: FloatArray) -> FloatArray:
        voxels = self.grid.mm_to_voxel(points_mm).T
        return np.stack([map_coordinates(part, voxels, order=1, mode="nearest") for part in self.field], 1)

    def _slabs(self) -> Iterator[tuple[slice, FloatArray]]:
        """Some slices along K at a time, and the positions of their voxels in the moving scan, (N, 3) mm."""
        shape = self.grid.shape
        thickness = max(1, _SLAB_VOXELS // (shape[0] * shape[1]))
        for start in range(0, shape[2], thickness):
            slices = slice(start, min(start + thickness, shape[2]))
            axes = np.arange(shape[0]), np.arange(shape[1]), np.arange(slices.start, slices.stop)
            voxels = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
            yield slices, self.grid.voxel_to_mm(voxels) + self.field[..., slices].reshape(3, -1).T


def register(
    fixed: ImageLike | Sequence[PathLike],
    moving: ImageLike | Sequence[PathLike],
    predictor: Predictor | PathLike,
    *,
    init: InitialTransform = "header",
    features: FeatureKind = "both",
    iterations: int = 40,
    smoothness: float = 10.0,
    device: str | None = None,
    progress: Progress | bool | None = None,
) -> Registration:
    """Register two scans by the features of a segmentation network (Heinrich et al. 2018, OBELISK, section 3.1).

    The scans may differ in grid, spacing and orientation. Two single slices are registered within their plane.

    >>> registration = register("fixed.nii.gz", "moving.nii.gz", "RUN/fold-0/bundle")  # doctest: +SKIP
    >>> moved = registration.warp_image()  # doctest: +SKIP

    Args:
        fixed: The scan that defines the grid of the result: a path, the paths of its channels, a `Scan`, or a nibabel
            or SimpleITK image.
        moving: The scan that is deformed.
        predictor: A `Predictor`, or the path of a bundle or run, trained to segment such scans. If it has several
            networks, the first is used.
        init: Initial translation. "header": none, the headers are right. "centers": between the centres of the fields
            of view. "search": the best of about 800 translations around "centers".
        features: "penultimate" (the input of the network's last layer), "probabilities" or "both".
        iterations: Optimisation steps at each of three resolutions; 0 keeps the initial translation.
        smoothness: Weight of the bending penalty, 0 or more.
        device: Device of the network if `predictor` is a path; by default a GPU if there is one. The optimisation runs
            on the CPU.
        progress: See `farvox.progress.resolve_progress`.

    Raises:
        DataError: The scans do not overlap, one is 2D and the other 3D, or the channels differ from the network's.
        ModelError: The last layer of the network is unknown.
        DeviceError: The device is not available.
        UsageError: An option is out of range, or a device is given with a `Predictor`.
    """
    options = RegisterOptions(features, init, iterations, smoothness)
    if not isinstance(predictor, Predictor):
        predictor = Predictor.load(Path(predictor), device=device or "auto")
    elif device is not None:
        raise UsageError(f"device '{device}' with a Predictor", hint="give the device to Predictor.load")
    fixed, moving = (read_scan_of(image, predictor) for image in (fixed, moving))
    report = resolve_progress(progress)
    require_same_dimension(fixed, moving)
    bundle = predictor.bundles[0]
    start_time = time.perf_counter()
    extractors = [FeatureExtractor(bundle, scan, options.features) for scan in (fixed, moving)]
    grids = [extractor.space.orient.target for extractor in extractors]
    # Scans that do not overlap are refused before the network runs.
    initial = initial_from_centres(*grids) if options.init == "centers" else np.zeros(3)
    if options.init == "header":
        initial = initial_from_headers(*grids)
    displacement, distances = Displacement(grids[0], initial), []
    features_time = time.perf_counter()
    if options.iterations or options.init == "search":
        finest = max(extractor.finest_mm for extractor in extractors)
        fixed_features = extractors[0].features(finest)
        report.update("register", 0.2)
        moving_features = extractors[1].features(finest)
        report.update("register", 0.4)
        groups = feature_groups(options.features, len(fixed_features.maps), bundle.manifest.model.classes)
        normalised = normalise_features(fixed_features, moving_features, groups)
        features_time = time.perf_counter()
        if options.init == "search":
            coarse = [side.at_spacing(max(_RESOLUTIONS) * finest) for side in normalised]
            displacement.initial = initial_from_search(*coarse)
        for number, multiple in enumerate(_RESOLUTIONS if options.iterations else ()):
            fraction = 0.4 + 0.5 * number / len(_RESOLUTIONS)
            callback = as_callback(report, "register", fraction, fraction + 0.5 / len(_RESOLUTIONS))
            before, after = optimise(
                displacement,
                *normalised,
                features_mm=multiple * finest,
                control_mm=4 * multiple**0.5 * finest,
                iterations=options.iterations,
                smoothness=options.smoothness,
                progress=callback,
            )
            distances.append(FeatureDistance(before=before, after=after))
    # float32 is precise enough for mm. Returning to the file's axis order only flips and permutes axes.
    field = np.ascontiguousarray(extractors[0].space.orient.invert(displacement.on_grid(grids[0])))
    report.update("register", 1.0)
    seconds = {"features": features_time - start_time, "optimisation": time.perf_counter() - features_time}
    network = bundle.manifest.model.name
    return Registration(
        fixed, moving, field, displacement.initial, tuple(distances), seconds, bundle.path, network, options
    )


def read_scan_of(image: ImageLike | Sequence[PathLike], predictor: Predictor) -> Scan:
    """A scan with the channels of the predictor: files of one channel each are found as in `farvox predict`."""
    if isinstance(image, (list, tuple)):
        paths = [Path(path) for path in image]
    elif isinstance(image, (str, Path)):
        paths = [Path(image)]
    else:
        return as_scan(image)  # type: ignore[arg-type]
    cases = find_scans(paths, predictor.channels)
    if len(cases) != 1:
        raise DataError(f"{paths[0]} contains {len(cases)} scans", allowed="one scan")
    return (
        as_scan(cases[0].images[0]) if len(cases[0].images) == 1 else read_scan_for(predictor.channels, cases[0].images)
    )


def require_same_dimension(fixed: Scan, moving: Scan) -> None:
    """Raise a DataError if one scan is a single slice and the other is a volume."""
    single_slice = [min(scan.grid.shape) == 1 for scan in (fixed, moving)]
    if single_slice[0] != single_slice[1]:
        image, volume = (fixed, moving) if single_slice[0] else (moving, fixed)
        raise DataError(
            f"{image.path.name} is a single slice and {volume.path.name} a volume of "
            f"{'×'.join(map(str, volume.grid.shape))} voxels",
            allowed="two volumes or two slices",
            hint="extract the slice from the volume",
        )
