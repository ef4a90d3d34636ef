"""`locate_files`: locate landmarks in many scans, compare them with references, and summarise the errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from farvox.data import CasePaths
from farvox.data.load import read_scan_for
from farvox.errors import FarvoxError, UsageError
from farvox.io.landmarks import LandmarkRow, Point, write_landmarks
from farvox.localization.api import Landmarks, LocateOptions, locate, require_point_network
from farvox.localization.reference import PointError, References, load_references, point_error, reference_points
from farvox.prediction import Predictor
from farvox.prediction.files import find_scans
from farvox.progress import Progress, resolve_progress
from farvox.types import PathLike

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class LocateResult:
    """The landmarks of one scan, or the error that prevented them.

    Args:
        case: Id of the scan.
        landmarks: None after an error.
        point_errors: One for each landmark; None without a reference.
        seconds: Time, including reading and preprocessing.
        error: The error message, one line.
    """

    case: str
    landmarks: Landmarks | None
    point_errors: tuple[PointError, ...] | None
    seconds: float
    error: str | None = None

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        if self.landmarks is None:
            return Text(f"error: {self.error}")
        samples, voxels, fraction = self.landmarks.n_samples, self.landmarks.n_voxels, self.landmarks.sample_fraction
        percentage = f"{fraction:.1%}" if fraction < 0.9995 else "all"
        title = f"{self.case}: {samples:,} samples, {percentage} of {voxels:,} voxels, {self.seconds:.1f} s"
        return Group(Text(title, "bold"), self.landmarks.table(self.point_errors))

    def to_dict(self) -> dict[str, object]:
        """The result as an entry of a JSON document."""
        if self.landmarks is None:
            return {"case": self.case, "error": self.error}
        errors = self.point_errors or (None,) * len(self.landmarks)
        return {
            "case": self.case,
            "landmarks": [
                {
                    "label": landmark.value,
                    "landmark": landmark.name,
                    "point_mm": landmark.point,
                    "confidence": round(landmark.confidence, 4),
                }
                | ({"reference_mm": e.reference, "error_mm": e.mm, "error_voxels": e.voxels} if e else {})
                for landmark, e in zip(self.landmarks, errors, strict=True)
            ],
            "samples": self.landmarks.n_samples,
            "voxels": self.landmarks.n_voxels,
            "sample_fraction": self.landmarks.sample_fraction,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class ErrorSummary:
    """The errors of one landmark over several scans.

    Args:
        count: Number of scans in which the landmark was found and has a reference; the other statistics are over these.
        false_negatives: Number of scans in which it was not found although it has a reference.
        false_positives: Number of scans in which it was found although it is absent.
        median_mm: Median distance, mm; None if `count` is 0.
        worst_mm: Largest distance, mm.
        median_voxels: Median distance, voxels.
        worst_voxels: Largest distance, voxels.
    """

    count: int
    false_negatives: int
    false_positives: int
    median_mm: float | None
    worst_mm: float | None
    median_voxels: float | None
    worst_voxels: float | None


@dataclass(frozen=True)
class LocateSummary:
    """The errors over all scans that have a reference, for each landmark and for all landmarks together."""

    landmarks: dict[str, ErrorSummary]
    all: ErrorSummary

    def table(self) -> Table:
        """A `rich` table with a row for each landmark."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("landmark", min_width=16)
        units = ("median\nmm", "worst\nmm", "median\nvoxels", "worst\nvoxels")
        for name in ("found", *units, "false\nnegatives", "false\npositives"):
            table.add_column(name, justify="right")
        for name, row in self.landmarks.items():
            table.add_row(name.replace("[", r"\["), *_cells(row))
        table.add_section()
        table.add_row("all", *_cells(self.all))
        return table


def locate_files(
    predictor: Predictor,
    scans: Sequence[PathLike],
    options: LocateOptions | None = None,
    *,
    reference: PathLike | None = None,
    out: PathLike | None = None,
    progress: Progress | bool | None = None,
) -> Iterator[LocateResult]:
    """Locate landmarks in many scans, one after the other. An error in one scan does not stop the others.

    Args:
        predictor: The networks.
        scans: Files, DICOM folders and folders of scans.
        options: How each scan is searched.
        reference: A folder of masks, a mask or a CSV file of landmarks, from which the errors are computed.
        out: A CSV file for the landmarks of all scans, written after the last scan.
        progress: See `farvox.progress.resolve_progress`.

    Returns:
        An iterator of one `LocateResult` for each scan.

    Raises:
        DataError: A path is not a scan, or the reference cannot be read.
        ResourceError: `out` cannot be written.
        UsageError: As for `locate`, and an `out` that is not a CSV file or would replace the reference.
    """
    options = options or LocateOptions()
    out = None if out is None else Path(out)
    if out and (out.suffix.lower() != ".csv" or out.is_dir()):
        raise UsageError(f"output {out}", allowed="the name of a .csv file")
    if out and reference is not None and Path(reference).resolve() == out.resolve():
        raise UsageError(f"output {out} would replace the reference", hint="choose another name")
    if not options.exhaustive:
        require_point_network(predictor)
    cases = find_scans([Path(scan) for scan in scans], predictor.channels)
    references: References = {}
    if reference is not None:
        references = load_references(Path(reference), [case.id for case in cases], predictor.labels)
    results = locate_cases(predictor, cases, options, references, resolve_progress(progress))
    return results if out is None else _written(results, out)


def locate_cases(
    predictor: Predictor, cases: Sequence[CasePaths], options: LocateOptions, references: References, progress: Progress
) -> Iterator[LocateResult]:
    """`locate_files` for cases whose files are known, with references from `load_references`."""
    for case in cases:
        start = time.monotonic()
        try:
            scan = read_scan_for(predictor.channels, case.images, case.id)
            landmarks = locate(predictor, scan, **asdict(options), progress=progress)
            seconds = time.monotonic() - start
            points = reference_points(references.get(case.id), predictor.labels, case.id)
            errors = None
            if points is not None:
                errors = tuple(point_error(mark.point, points.get(mark.name), scan.grid) for mark in landmarks)
            yield LocateResult(case.id, replace(landmarks, case=case.id), errors, seconds)
        except FarvoxError as error:
            error.case = error.case or case.id
            progress.update(f"locate {case.id}", 1.0)
            yield LocateResult(case.id, None, None, time.monotonic() - start, str(error))


def summarise(results: Sequence[LocateResult]) -> LocateSummary | None:
    """Summarise the errors over all scans that have a reference; None if there are none."""
    groups: dict[str, list[tuple[Point | None, PointError]]] = {}
    for result in results:
        for landmark, error in zip(result.landmarks or (), result.point_errors or (), strict=False):
            groups.setdefault(landmark.name, []).append((landmark.point, error))
    if not groups:
        return None
    per_landmark = {name: _error_summary(group) for name, group in groups.items()}
    return LocateSummary(per_landmark, _error_summary([pair for group in groups.values() for pair in group]))


def _written(results: Iterator[LocateResult], out: Path) -> Iterator[LocateResult]:
    """The same results; their landmarks are written at the end."""
    rows: list[LandmarkRow] = []
    for result in results:
        rows += result.landmarks.rows() if result.landmarks else []
        yield result
    if rows:
        write_landmarks(out, rows)


def _error_summary(group: Sequence[tuple[Point | None, PointError]]) -> ErrorSummary:
    mm = [error.mm for _, error in group if error.mm is not None]
    voxels = [error.voxels for _, error in group if error.voxels is not None]
    return ErrorSummary(
        count=len(mm),
        false_negatives=sum(error.reference is not None and point is None for point, error in group),
        false_positives=sum(error.reference is None and point is not None for point, error in group),
        median_mm=float(np.median(mm)) if mm else None,
        worst_mm=max(mm, default=None),
        median_voxels=float(np.median(voxels)) if voxels else None,
        worst_voxels=max(voxels, default=None),
    )


def _cells(row: ErrorSummary) -> list[str]:
    values = (row.median_mm, row.worst_mm, row.median_voxels, row.worst_voxels)
    numbers = ["–" if value is None else f"{value:.2f}" for value in values]
    return [str(row.count), *numbers, str(row.false_negatives), str(row.false_positives)]
