"""`farvox.evaluate`: compare predicted masks with references."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import numpy as np

from farvox.errors import DataError, UsageError
from farvox.evaluation.cases import evaluate_case
from farvox.evaluation.files import evaluate_files, resolve_tolerance
from farvox.evaluation.pairs import Pair, find_pairs
from farvox.evaluation.schema import Metrics
from farvox.evaluation.statistics import build_metrics
from farvox.geometry import Grid
from farvox.labels import LabelTable
from farvox.progress import Progress, resolve_progress
from farvox.types import Array, PathLike

_VALUES_NOTE = "no label table: the label values in the masks are evaluated"


def evaluate(
    predictions: PathLike | Array,
    references: PathLike | Array,
    *,
    affine: Array | None = None,
    labels: Mapping[int, str] | LabelTable | None = None,
    tolerance_mm: float | None = None,
    out: PathLike | None = None,
    progress: Progress | bool | None = None,
) -> Metrics:
    """Compare predicted masks with reference masks.

    In folders, each prediction is compared with the reference of the same name; the formats may differ. A reference may
    also be named `<case>_segmentation` or `<case>_seg`, and a prediction `<case>_0000` like its scan. Two single files
    are compared regardless of their names.

    Args:
        predictions: A folder of masks, one mask file, or an array of label values (I, J, K).
        references: The references in the same form.
        affine: (4, 4) matrix from voxel indices to mm (RAS+); required for arrays.
        labels: Label value → name. None reads the `dataset.json` in the folder of the references or above it, and
            without one evaluates all label values in the masks.
        tolerance_mm: Tolerance of surface Dice, mm, at least 0. None takes the voxel spacing: the geometric mean over
            the axes, and its median over the references.
        out: JSON file to write; a CSV file of the same name is written next to it.
        progress: Receives the progress; see `farvox.progress.resolve_progress`.

    Returns:
        Metrics of each label and case with their summary. Files that cannot be evaluated are listed in `failed`.

    Raises:
        DataError: There is nothing to compare, or a prediction has no reference.
        UsageError: A negative tolerance, or an array without `affine`.

    Example:
        >>> import numpy as np
        >>> reference = np.zeros((8, 8, 8), dtype=np.uint8)
        >>> reference[2:6, 2:6, 2:6] = 1
        >>> metrics = evaluate(np.roll(reference, 1, axis=0), reference, affine=np.eye(4), labels={1: "liver"})
        >>> metrics.summary.labels[1].dice.mean
        0.75
    """
    table = LabelTable.from_mapping(labels) if isinstance(labels, Mapping) else labels
    if _is_path(predictions) and _is_path(references):
        pairs, notes = find_pairs(Path(predictions), Path(references))
        if table is None and (table := _dataset_labels(Path(references))) is None:
            table = _labels_in_files(pairs)
            notes.append(_VALUES_NOTE)
        watcher = resolve_progress(progress)
        metrics = evaluate_files(pairs, table, tolerance_mm=tolerance_mm, notes=notes, progress=watcher)
    elif _is_path(predictions) or _is_path(references):
        raise UsageError("a path and an array", allowed="two paths or two arrays")
    else:
        metrics = _evaluate_arrays(np.asarray(predictions), np.asarray(references), affine, table, tolerance_mm)
    if out is not None:
        metrics.write(Path(out))
    return metrics


def _is_path(value: PathLike | Array) -> TypeGuard[PathLike]:
    return isinstance(value, str | os.PathLike)


def _evaluate_arrays(
    prediction: Array, reference: Array, affine: Array | None, table: LabelTable | None, tolerance_mm: float | None
) -> Metrics:
    if affine is None:
        raise UsageError("arrays without an affine", hint="pass affine=, the 4×4 matrix from voxel indices to mm")
    if reference.ndim != 3:
        raise DataError(f"a reference of shape {reference.shape}", allowed="three axes (I, J, K)")
    i, j, k = reference.shape
    grid = Grid((i, j, k), np.asarray(affine, dtype=np.float64))
    notes = [] if table else [_VALUES_NOTE]
    table = table or _table_of_values({*_label_values(prediction), *_label_values(reference)})
    tolerance, more = resolve_tolerance(tolerance_mm, [grid])
    case = evaluate_case(table.to_classes(prediction), table.to_classes(reference), grid, table, tolerance, "array")
    return build_metrics([case], table, tolerance, notes=[*notes, *more])


def _dataset_labels(references: Path) -> LabelTable | None:
    """The label table of the dataset that contains the references."""
    from farvox.data import read_dataset

    folder = references if references.is_dir() else references.parent
    for root in (folder, folder.parent):
        if (root / "dataset.json").is_file():
            try:
                return read_dataset(root).labels
            except DataError:
                return None
    return None


def _labels_in_files(pairs: list[Pair]) -> LabelTable:
    """A table of the values in all masks. Unreadable files are reported later, case by case."""
    from farvox.io import read_label

    values: set[int] = set()
    for case, *paths in pairs:
        for path in paths:
            try:
                values |= _label_values(read_label(path, case=case)[0])
            except DataError:
                continue
    return _table_of_values(values)


def _label_values(mask: Array) -> set[int]:
    return {int(value) for value in np.unique(mask) if value > 0 and float(value).is_integer()}


def _table_of_values(values: set[int]) -> LabelTable:
    if not values:
        raise DataError("no readable mask contains a value above 0", hint="pass the label table")
    return LabelTable.from_mapping({value: f"label {value}" for value in values})
