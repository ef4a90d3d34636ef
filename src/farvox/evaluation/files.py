"""Evaluation of mask files: each pair is read, its grids are compared, and failures are collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from farvox.errors import DataError, FarvoxError, UsageError
from farvox.evaluation.cases import default_tolerance_mm, evaluate_case
from farvox.evaluation.pairs import Pair
from farvox.evaluation.schema import CaseMetrics, Failure, Metrics
from farvox.evaluation.statistics import build_metrics
from farvox.labels import LabelTable
from farvox.types import Array

if TYPE_CHECKING:
    from farvox.geometry import Grid
    from farvox.progress import Progress


def evaluate_files(
    pairs: Sequence[Pair],
    labels: LabelTable,
    *,
    scans: Mapping[str, Path] | None = None,
    tolerance_mm: float | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Metrics:
    """Compare pairs of mask files.

    Args:
        pairs: (case, prediction, reference) of each case.
        labels: The label table.
        scans: Case id → image, to be recorded with the metrics.
        tolerance_mm: Tolerance of surface Dice, mm, at least 0; None takes `default_tolerance_mm` of the references.
        notes: Remarks to include.
        progress: Receives the progress.

    Returns:
        The metrics; cases that cannot be evaluated are listed in `failed` with a message.

    Raises:
        UsageError: A negative or infinite tolerance.
    """
    tolerance, more = resolve_tolerance(tolerance_mm, _grids(pairs) if tolerance_mm is None else ())
    cases, failed = [], []
    for done, (case, prediction, reference) in enumerate(pairs, 1):
        scan = (scans or {}).get(case)
        try:
            metrics = _evaluate_pair(case, prediction, reference, labels, tolerance)
            paths = {"prediction": prediction, "reference": reference, **({} if scan is None else {"scan": scan})}
            cases.append(metrics.model_copy(update={role: str(path.resolve()) for role, path in paths.items()}))
        except FarvoxError as error:
            failed.append(Failure(case=case, error=str(error)))
        if progress:
            progress.update("evaluate", done / len(pairs), case=case)
    return build_metrics(cases, labels, tolerance, failed=failed, notes=[*notes, *more])


def resolve_tolerance(tolerance_mm: float | None, grids: Iterator[Grid] | Sequence[Grid]) -> tuple[float, list[str]]:
    """The tolerance of surface Dice, mm, by default that of the grids; and a note if it is the default.

    Raises:
        UsageError: A negative or infinite tolerance.
    """
    if tolerance_mm is None:
        grids = list(grids)
        tolerance_mm = default_tolerance_mm(grids) if grids else 1.0
        spacing = "median over cases of the geometric mean voxel spacing"
        return tolerance_mm, [f"surface tolerance {tolerance_mm:g} mm: {spacing}"]
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(f"a tolerance of {tolerance_mm:g} mm", allowed="0 mm or more")
    return tolerance_mm, []


def _evaluate_pair(
    case: str, prediction: Path, reference: Path, labels: LabelTable, tolerance_mm: float
) -> CaseMetrics:
    from farvox.io import read_label

    predicted, predicted_grid = read_label(prediction, case=case)
    expected, grid = read_label(reference, case=case)
    difference = grid.difference_to(predicted_grid)
    if difference:
        raise DataError(
            f"prediction {prediction.name} and reference {reference.name} have different grids: {difference}",
            hint="resample the prediction to the grid of its scan",
            case=case,
        )
    classes = _to_classes(predicted, labels, f"prediction {prediction.name}", case)
    del predicted
    return evaluate_case(
        classes, _to_classes(expected, labels, f"reference {reference.name}", case), grid, labels, tolerance_mm, case
    )


def _to_classes(values: Array, labels: LabelTable, name: str, case: str) -> Array:
    try:
        return labels.to_classes(values, case)
    except DataError as error:
        raise DataError(f"{name}: {error.found}", allowed=error.allowed, hint=error.hint, case=case) from None


def _grids(pairs: Sequence[Pair]) -> Iterator[Grid]:
    """Grids of the references; unreadable files are reported later, case by case."""
    from farvox.io import read_grid

    for case, _, reference in pairs:
        try:
            yield read_grid(reference, case=case)
        except FarvoxError:
            continue
