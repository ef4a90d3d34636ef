"""Locate in one scan after the other, and put what was found into a table of landmarks and figures of error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farvox.data import CasePaths
from farvox.errors import FarvoxError
from farvox.io.landmarks import LandmarkRow, Point
from farvox.localization.api import LocateOptions, Location, locate
from farvox.localization.reference import References, distance, reference_points
from farvox.prediction import Predictor
from farvox.prediction.files import read_scan_for


@dataclass(frozen=True)
class Error:
    """How far an answer is from its reference; None where one of the two does not have the structure.

    Args:
        known: Where the structure is known to lie, mm; None where it is known not to be there.
        mm: Distance in mm.
        voxels: Distance in voxels of the scan.
    """

    known: Point | None
    mm: float | None
    voxels: float | None


@dataclass(frozen=True)
class ScanResult:
    """What became of one scan: where its structures are, or an error in one line.

    Args:
        case: The scan's id.
        location: None after an error.
        errors: One a place, in their order; None without a reference.
        seconds: Reading and preparing included.
        problem: The error's line.
    """

    case: str
    location: Location | None
    errors: tuple[Error, ...] | None
    seconds: float
    problem: str | None = None

    def document(self) -> dict[str, Any]:
        """As one entry of the verb's JSON."""
        if self.location is None:
            return {"case": self.case, "error": self.problem}
        places = []
        for number, place in enumerate(self.location.places):
            entry: dict[str, Any] = {
                "label": place.value,
                "landmark": place.name,
                "point_mm": place.point,
                "confidence": round(place.confidence, 4),
            }
            if self.errors is not None:
                error = self.errors[number]
                entry |= {"reference_mm": error.known, "error_mm": error.mm, "error_voxels": error.voxels}
            places.append(entry)
        figures = {"samples": self.location.samples, "voxels": self.location.voxels, "share": self.location.share}
        return {"case": self.case, "landmarks": places, **figures, "seconds": round(self.seconds, 3)}


def locate_scans(
    predictor: Predictor,
    scans: Sequence[CasePaths],
    settings: LocateOptions,
    references: References | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[ScanResult]:
    """Locate in each scan; a bad scan does not stop the rest.

    Args:
        predictor: The networks.
        scans: As from `farvox.prediction.files.find_scans`.
        settings: How to search.
        references: As from `load_references`, to tell errors.
        progress: Told (case, finished share).
    """
    for case in scans:
        started = time.monotonic()
        try:
            scan = read_scan_for(predictor, case)
            told = (lambda share, id=case.id: progress(id, share)) if progress else None
            found = locate(predictor, scan, settings, progress=told)
            seconds = time.monotonic() - started
            known = reference_points((references or {}).get(case.id), predictor.labels, case.id)
            errors = None
            if known is not None:
                errors = tuple(_error(place.point, known.get(place.name), scan.grid) for place in found.places)
            yield ScanResult(case.id, found, errors, seconds)
        except FarvoxError as error:
            error.case = error.case or case.id
            yield ScanResult(case.id, None, None, time.monotonic() - started, str(error))


def landmark_rows(results: Sequence[ScanResult]) -> list[LandmarkRow]:
    """Rows of the table of landmarks, with confidence, samples and their share of the voxels."""
    return [
        LandmarkRow(
            result.case,
            place.name,
            place.point,
            {
                "confidence": f"{place.confidence:.4f}",
                "samples": result.location.samples,
                "share": f"{result.location.share:.5f}",
            },
        )
        for result in results
        if result.location is not None
        for place in result.location.places
    ]


def summarise(results: Sequence[ScanResult]) -> dict[str, Any] | None:
    """Errors over all scans with a reference, for each landmark and over all of them; None without any.

    `false_negatives` counts structures that are there and were not found, `false_positives` those found that are not there; neither
    enters the medians.
    """
    groups: dict[str, list[tuple[Point | None, Error]]] = {}
    for result in results:
        if result.location is None or result.errors is None:
            continue
        for place, error in zip(result.location.places, result.errors, strict=True):
            groups.setdefault(place.name, []).append((place.point, error))
    if not groups:
        return None
    return {
        "landmarks": {name: _figures(group) for name, group in groups.items()},
        "all": _figures([pair for group in groups.values() for pair in group]),
    }


def _figures(group: Sequence[tuple[Point | None, Error]]) -> dict[str, Any]:
    mm = [error.mm for _, error in group if error.mm is not None]
    voxels = [error.voxels for _, error in group if error.voxels is not None]
    return {
        "count": len(mm),
        "false_negatives": sum(error.known is not None and point is None for point, error in group),
        "false_positives": sum(error.known is None and point is not None for point, error in group),
        "median_mm": float(np.median(mm)) if mm else None,
        "worst_mm": max(mm, default=None),
        "median_voxels": float(np.median(voxels)) if voxels else None,
        "worst_voxels": max(voxels, default=None),
    }


def _error(point: Point | None, known: Point | None, grid: Any) -> Error:
    if point is None or known is None:
        return Error(known, None, None)
    return Error(known, *distance(point, known, grid))
