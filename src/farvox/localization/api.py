"""`locate`: from a trained network and a scan to one point in mm for each landmark, or the centroid of each label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from farvox._tables import data_frame, table_html
from farvox.errors import UsageError
from farvox.geometry import Grid
from farvox.io import case_id_from_path
from farvox.io.images_2d import ImageLike
from farvox.io.landmarks import LandmarkRow, Point, write_landmarks
from farvox.localization.estimate import estimate_centroid
from farvox.localization.reference import PointError
from farvox.localization.search import WeightedSamples, sample_progressively
from farvox.models import list_models, model_info
from farvox.prediction import Predictor, PreparedScan
from farvox.prediction.points import supports_points
from farvox.progress import Progress, resolve_progress
from farvox.types import FloatArray, PathLike

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

DEFAULT_SAMPLE_FRACTION = 0.04
"""Samples for each voxel of the network grid, unless a number is given."""
_MIN_SAMPLES_PER_ROUND = 50
_CHUNK = 1 << 18
_MIN_PROBABILITY = 0.01
"""An exhaustive search ignores voxels whose foreground probabilities are all below this."""


@dataclass(frozen=True)
class LocateOptions:
    """How a scan is searched.

    Args:
        exhaustive: Evaluate the network at every voxel of the network grid, instead of progressively at few points.
        rounds: Rounds of sampling. The first covers the whole scan, each further one concentrates on likely positions.
        samples: Number of points in all rounds together. By default 4 % of the voxels of the network grid.
        seed: Seed of the sampling; the same seed gives the same points.
        min_confidence: A structure with a lower confidence counts as not found, 0 to 1.
    """

    exhaustive: bool = False
    rounds: int = 6
    samples: int | None = None
    seed: int = 0
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"{self.rounds} rounds", allowed="1 or more; 6 are usual")
        minimum = _MIN_SAMPLES_PER_ROUND * self.rounds
        if self.samples is not None and self.samples < minimum:
            raise UsageError(f"{self.samples} samples in {self.rounds} rounds", allowed=f"{minimum} or more")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"a minimum confidence of {self.min_confidence:g}", allowed="0 to 1")


@dataclass(frozen=True)
class Landmark:
    """The position of one structure.

    Args:
        value: Label value.
        name: Label name.
        point: Centroid of the structure's probability, mm, RAS+; None if the structure was not found.
        confidence: Mean probability over the structure, 0 to 1.
    """

    value: int
    name: str
    point: Point | None
    confidence: float


@dataclass(frozen=True, repr=False)
class Landmarks(Sequence[Landmark]):
    """The landmarks of one scan: a sequence with one `Landmark` for each label except the background.

    A landmark is also accessible by its name.

    >>> landmarks = Landmarks("patient_01", (Landmark(6, "liver", (92.3, -17.7, 100.8), 0.94),), 200, 5000)
    >>> landmarks
    Landmarks(patient_01: 1 of 1 found, 4.0% of the voxels sampled)
    >>> landmarks["liver"].point
    (92.3, -17.7, 100.8)

    Args:
        case: Id of the scan.
        landmarks: One for each label, in the order of the label table.
        n_samples: Number of points at which each network was evaluated.
        n_voxels: Number of voxels of the network grid, at all of which an exhaustive search evaluates the networks.
    """

    case: str
    landmarks: tuple[Landmark, ...]
    n_samples: int
    n_voxels: int

    @property
    def sample_fraction(self) -> float:
        """Number of samples divided by the number of voxels."""
        return self.n_samples / self.n_voxels

    def __len__(self) -> int:
        return len(self.landmarks)

    @overload
    def __getitem__(self, index: int | str) -> Landmark: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Landmark, ...]: ...
    def __getitem__(self, index: int | str | slice) -> Landmark | tuple[Landmark, ...]:
        if not isinstance(index, str):
            return self.landmarks[index]
        try:
            return next(landmark for landmark in self.landmarks if landmark.name == index)
        except StopIteration:
            raise KeyError(index) from None

    def __repr__(self) -> str:
        n_found = sum(landmark.point is not None for landmark in self.landmarks)
        return (
            f"Landmarks({self.case}: {n_found} of {len(self)} found, {self.sample_fraction:.1%} of the voxels sampled)"
        )

    def _repr_html_(self) -> str:
        return table_html(self.table())

    def table(self, errors: Sequence[PointError] | None = None) -> Table:
        """A `rich` table with the coordinates and the confidence of each landmark, and the errors if given."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("landmark", min_width=16)
        for name in ("x, mm", "y, mm", "z, mm", "confidence", *(("error, mm", "voxels") if errors is not None else ())):
            table.add_column(name, justify="right")
        for landmark, error in zip(self, errors or (None,) * len(self), strict=True):
            point = ["not found", "", ""] if landmark.point is None else [f"{value:.1f}" for value in landmark.point]
            row = [landmark.name.replace("[", r"\["), *point, f"{landmark.confidence:.2f}"]
            if error and error.mm is not None:
                row += [f"{error.mm:.2f}", f"{error.voxels:.2f}"]
            elif error:
                row += ["–" if error.reference else "absent", ""]
            table.add_row(*row)
        return table

    def rows(self) -> list[LandmarkRow]:
        """Rows for `write_landmarks`, with the confidence, the number of samples and their fraction."""
        sampling = {"samples": str(self.n_samples), "sample_fraction": f"{self.sample_fraction:.5f}"}
        return [
            LandmarkRow(
                self.case, landmark.name, landmark.point, {"confidence": f"{landmark.confidence:.4f}", **sampling}
            )
            for landmark in self.landmarks
        ]

    def to_csv(self, path: PathLike) -> None:
        """Write a CSV file with a row for each landmark, which `read_dataset(landmarks=...)` can read.

        Raises:
            ResourceError: The disk is full or the folder is not writable.
        """
        write_landmarks(path, self.rows())

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas data frame with the columns case, label, landmark, x, y, z (mm, RAS+) and confidence.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return data_frame(
            {"case": self.case, "label": landmark.value, "landmark": landmark.name}
            | dict(zip("xyz", landmark.point or (np.nan,) * 3, strict=True))
            | {"confidence": landmark.confidence}
            for landmark in self.landmarks
        )


def locate(
    predictor: Predictor | PathLike,
    scan: ImageLike | PreparedScan,
    *,
    affine: FloatArray | None = None,
    exhaustive: bool = False,
    rounds: int = 6,
    samples: int | None = None,
    seed: int = 0,
    min_confidence: float = 0.5,
    progress: Progress | bool | None = None,
) -> Landmarks:
    """Find the centroid of each label in a scan by progressive refinement (Heinrich et al. 2018, OBELISK, section 2.1).

    An even first set of points covers the scan. Each further round samples around positions of high probability, from a
    Gaussian as wide as the structure, so that samples concentrate on a landmark and cover an organ. The points of all
    rounds contribute to the estimate, each weighted by the volume that it represents. An exhaustive search makes the
    same estimate from every voxel.

    >>> landmarks = locate("RUN/fold-0/bundle", "scan.nii.gz")  # doctest: +SKIP
    >>> landmarks.to_csv("points.csv")  # doctest: +SKIP

    Args:
        predictor: A `Predictor`, or the path of a bundle or run. An exhaustive search works with any network, a
            progressive one with networks that support points.
        scan: A path, a `Scan`, a nibabel or SimpleITK image, an array (I, J, K) or (C, I, J, K), or a prepared scan.
        affine: For an array: 4×4, voxel index to mm, RAS+.
        exhaustive: Evaluate the network at every voxel of the network grid.
        rounds: Rounds of sampling, 1 or more.
        samples: Number of points in all rounds together; by default 4 % of the voxels of the network grid.
        seed: Seed of the sampling; the same seed gives the same points.
        min_confidence: A structure with a lower confidence counts as not found, 0 to 1.
        progress: See `farvox.progress.resolve_progress`.

    Raises:
        DataError: The scan cannot be read, or has the wrong number of channels.
        UsageError: An option is out of range, or the network does not support points and `exhaustive` is False.
    """
    LocateOptions(exhaustive, rounds, samples, seed, min_confidence)  # raises if one is out of range
    progress = resolve_progress(progress)
    predictor = predictor if isinstance(predictor, Predictor) else Predictor.load(Path(predictor))
    if not exhaustive:
        require_point_network(predictor)
    prepared = scan if isinstance(scan, PreparedScan) else predictor.prepare(scan, affine)
    case = case_id_from_path(prepared.scan.path)
    network_grid = max((space.grid for space in prepared.spaces), key=lambda grid: grid.n_voxels)
    n_evaluated = 0

    def evaluate(points: FloatArray) -> FloatArray:
        nonlocal n_evaluated
        n_evaluated += len(points)
        progress.update(f"locate {case}", min(1.0, n_evaluated / total))
        return predictor.predict_points(prepared, points).probabilities

    if exhaustive:
        total = network_grid.n_voxels
        chunked = all(supports_points(bundle) for bundle in predictor.bundles)
        weighted = _sample_all_voxels(evaluate, network_grid, _CHUNK if chunked else total)
    else:
        default = max(round(DEFAULT_SAMPLE_FRACTION * network_grid.n_voxels), _MIN_SAMPLES_PER_ROUND * rounds)
        total = samples or default
        spacing_mm = float(network_grid.voxel_ml * 1000) ** (1 / 3)
        weighted = sample_progressively(
            evaluate, prepared.scan.grid, spacing_mm, rounds=rounds, samples=total, seed=seed
        )
    progress.update(f"locate {case}", 1.0)
    labels = predictor.labels.foreground
    landmarks = tuple(_landmark(weighted, index, value, name, min_confidence) for index, value, name in labels)
    return Landmarks(case, landmarks, n_evaluated, network_grid.n_voxels)


def require_point_network(predictor: Predictor) -> None:
    """Raise a UsageError that names the networks that support points, unless all networks of the predictor do."""
    for bundle in predictor.bundles:
        if not supports_points(bundle):
            point_networks = [name for name in list_models() if model_info(name).points]
            name = bundle.manifest.model.name
            description = f"{name} trained on patches" if name in point_networks else name
            raise UsageError(
                f"{bundle.path} contains {description}, which cannot be evaluated at single points",
                allowed=f"{', '.join(point_networks)}, trained on whole scans",
                hint="add --exhaustive (exhaustive=True) to evaluate every voxel, or train such a network",
            )


def _landmark(samples: WeightedSamples, index: int, value: int, name: str, min_confidence: float) -> Landmark:
    probabilities = samples.probabilities[:, index]
    if not probabilities.any():
        return Landmark(value, name, None, 0.0)
    mass = estimate_centroid(samples.points_mm, probabilities, samples.volumes)
    x, y, z = mass.centre.tolist()
    point = (x, y, z) if mass.mean_probability >= min_confidence else None
    return Landmark(value, name, point, mass.mean_probability)


def _sample_all_voxels(evaluate: Callable[[FloatArray], FloatArray], grid: Grid, chunk: int) -> WeightedSamples:
    """Probabilities at the voxel centres of a grid, without voxels that are almost certainly background."""
    points, probabilities = [], []
    for part in _voxel_centres(grid, chunk):
        outputs = evaluate(part)
        foreground = outputs[:, 1:].max(1) >= _MIN_PROBABILITY
        points.append(part[foreground])
        probabilities.append(outputs[foreground])
    n_points = sum(map(len, points))
    volumes = np.full(n_points, grid.voxel_ml * 1000)
    return WeightedSamples(np.concatenate(points), np.concatenate(probabilities), volumes)


def _voxel_centres(grid: Grid, chunk: int) -> Iterator[FloatArray]:
    for start in range(0, grid.n_voxels, chunk):
        flat = np.arange(start, min(start + chunk, grid.n_voxels))
        yield grid.voxel_to_mm(np.stack(np.unravel_index(flat, grid.shape), -1))
