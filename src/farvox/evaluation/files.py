"""Evaluate files: read each pair, check that both lie on one grid, collect what fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from farvox.errors import DataError, FarvoxError, UsageError
from farvox.evaluation.cases import default_tolerance_mm, evaluate_case
from farvox.evaluation.pairs import Pair, find_pairs
from farvox.evaluation.schema import CaseMetrics, Failure, Metrics
from farvox.evaluation.statistics import build_metrics
from farvox.labels import LabelTable

if TYPE_CHECKING:
    from farvox.geometry import Grid

Progress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, case just done)."""


def evaluate_folder(
    predictions: Path,
    references: Path,
    *,
    labels: LabelTable | None = None,
    tolerance_mm: float | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Compare each predicted mask with the reference of the same name; formats may differ.

    A reference may also be named `<case>_segmentation` or `<case>_seg`, a prediction `<case>_0000` after its scan.
    Two single files are compared whatever their names.

    Args:
        predictions: Folder of masks, or one mask.
        references: Folder of masks, or one mask; references without a prediction are noted.
        labels: What the values mean; None takes the values found in all masks.
        tolerance_mm: Of surface Dice, mm, 0 or more; None takes `default_tolerance_mm` of the references.
        progress: Called after each case.

    Returns:
        The metrics, as from `evaluate_files`.

    Raises:
        DataError: Nothing to compare, or a prediction without a reference.
        UsageError: A negative or infinite tolerance.
    """
    pairs, notes = find_pairs(Path(predictions), Path(references))
    if labels is None:
        labels = _labels_found(pairs)
        notes.append("no label table: the label values found in the masks are evaluated")
    return evaluate_files(pairs, labels, tolerance_mm=tolerance_mm, notes=notes, progress=progress)


def evaluate_files(
    pairs: Sequence[Pair],
    labels: LabelTable,
    *,
    scans: Mapping[str, Path] | None = None,
    tolerance_mm: float | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Metrics:
    """Compare pairs of files that are known to belong together.

    Args:
        pairs: (case, prediction, reference) of each case.
        labels: What the values mean.
        scans: Image of each case, to be named in the document.
        tolerance_mm: Of surface Dice, mm, 0 or more; None takes `default_tolerance_mm` of the references.
        notes: Lines for the document's "notes".
        progress: Called after each case.

    Returns:
        The metrics; cases that cannot be evaluated are listed in `failed` with a message.

    Raises:
        UsageError: A negative or infinite tolerance.
    """
    notes = list(notes)
    if tolerance_mm is None:
        grids = _grids(pairs)
        tolerance_mm = default_tolerance_mm(grids) if grids else 1.0
        notes.append(f"surface tolerance {tolerance_mm:g} mm: median over cases of the geometric mean voxel spacing")
    elif not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(f"a tolerance of {tolerance_mm:g} mm", allowed="0 mm or more")
    cases, failed = [], []
    for done, (case, prediction, reference) in enumerate(pairs, 1):
        scan = (scans or {}).get(case)
        try:
            metrics = _evaluate_files(case, prediction, reference, labels, tolerance_mm)
            paths = {"prediction": prediction, "reference": reference, **({} if scan is None else {"scan": scan})}
            cases.append(metrics.model_copy(update={role: str(path.resolve()) for role, path in paths.items()}))
        except FarvoxError as error:
            failed.append(Failure(case=case, error=str(error)))
        if progress:
            progress(done, len(pairs), case)
    return build_metrics(cases, labels, tolerance_mm, failed=failed, notes=notes)


def _evaluate_files(
    case: str, prediction: Path, reference: Path, labels: LabelTable, tolerance_mm: float
) -> CaseMetrics:
    from farvox.io import read_label

    predicted, grid_predicted = read_label(prediction, case=case)
    wanted, grid = read_label(reference, case=case)
    difference = grid.difference_to(grid_predicted)
    if difference:
        raise DataError(
            f"prediction {prediction.name} and reference {reference.name} lie on different grids: {difference}",
            hint="bring the prediction to the grid of its scan",
            case=case,
        )
    classes = [
        _to_classes(values, labels, f"{side} {path.name}", case)
        for values, side, path in ((predicted, "prediction", prediction), (wanted, "reference", reference))
    ]
    del predicted, wanted
    return evaluate_case(classes[0], classes[1], grid, labels, tolerance_mm, case)


def _to_classes(values: Any, labels: LabelTable, what: str, case: str) -> Any:
    try:
        return labels.to_classes(values, case)
    except DataError as error:
        raise DataError(f"{what}: {error.found}", allowed=error.allowed, hint=error.hint, case=case) from None


def _grids(pairs: Sequence[Pair]) -> list[Grid]:
    """Grids of the references; files that cannot be read fail later, one by one."""
    from farvox.io import read_grid

    grids = []
    for case, _, reference in pairs:
        with suppress(FarvoxError):
            grids.append(read_grid(reference, case=case))
    return grids


def _labels_found(pairs: Sequence[Pair]) -> LabelTable:
    """A table of the whole values in all masks; other values and unreadable files fail later, case by case."""
    from farvox.io import read_label

    found: set[int] = set()
    for case, *paths in pairs:
        for path in paths:
            with suppress(FarvoxError):
                present = np.unique(read_label(path, case=case)[0])
                found.update(int(value) for value in present if value > 0 and float(value).is_integer())
    if not found:
        raise DataError("no mask that can be read holds a value above 0", hint="give the label table")
    return LabelTable.from_mapping({value: f"label {value}" for value in found})
