"""Metrics of one case. Each label is evaluated in its bounding box, so memory depends on the structure alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from farvox.errors import DataError
from farvox.evaluation.schema import QUALITY_METRICS, CaseMetrics, MetricValues, QualityValues
from farvox.labels import IGNORE, LabelTable
from farvox.types import Array

if TYPE_CHECKING:
    from farvox.geometry import Grid


def evaluate_case(
    prediction: Array, reference: Array, grid: Grid, labels: LabelTable, tolerance_mm: float, case: str = ""
) -> CaseMetrics:
    """Compare one prediction with its reference.

    Voxels whose reference is `IGNORE` are excluded from all metrics and volumes. A prediction of `IGNORE` counts as
    background.

    Args:
        prediction: Class indices (I, J, K), uint8.
        reference: Class indices (I, J, K), uint8.
        grid: Voxel grid of both.
        labels: The label table.
        tolerance_mm: Tolerance of surface Dice, mm.
        case: Case id.

    Returns:
        The metrics of each label, and their mean over the labels for which they are defined.

    Raises:
        DataError: The arrays do not have the shape of the grid.
    """
    from scipy.ndimage import find_objects

    if not prediction.shape == reference.shape == grid.shape:
        raise DataError(
            f"prediction of shape {prediction.shape} and reference of shape {reference.shape}",
            allowed=f"both {grid.shape}, as their grid",
        )
    # Arrays from NIfTI files are in Fortran order, in which finding the boxes takes three times as long.
    prediction, reference = np.ascontiguousarray(prediction), np.ascontiguousarray(reference)
    voxels = int(np.count_nonzero(reference != IGNORE))
    boxes = zip(
        find_objects(prediction, max_label=labels.classes - 1),
        find_objects(reference, max_label=labels.classes - 1),
        strict=True,
    )
    metrics = {}
    for (index, value, _), pair in zip(labels.foreground, boxes, strict=True):
        box = _joint_box(pair, grid.shape)
        metrics[value] = _label_metrics(prediction[box], reference[box], index, voxels, grid, tolerance_mm)
    mean = {metric: mean_of_defined(row[metric] for row in metrics.values()) for metric in QUALITY_METRICS}
    return CaseMetrics(case=case, labels=metrics, mean=QualityValues(**mean))


def default_tolerance_mm(grids: Iterable[Grid]) -> float:
    """Default tolerance of surface Dice: about one voxel.

    Args:
        grids: Grids of the cases, at least one.

    Returns:
        Median over the grids of the geometric mean spacing, mm, rounded to a millionth.
    """
    return round(float(np.median([np.prod(grid.spacing) ** (1 / 3) for grid in grids])), 6)


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values; None if there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _joint_box(pair: tuple[tuple[slice, ...] | None, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Bounding box of both masks, padded by one voxel because neighbours may be ignored; empty for empty masks."""
    present = [box for box in pair if box is not None]
    if not present:
        return (slice(0, 0),) * 3
    return tuple(
        slice(max(min(box[axis].start for box in present) - 1, 0), min(max(box[axis].stop for box in present) + 1, n))
        for axis, n in enumerate(shape)
    )


def _label_metrics(
    prediction: Array, reference: Array, index: int, voxels: int, grid: Grid, tolerance_mm: float
) -> MetricValues:
    from farvox.metrics import Overlap, hd95, surface_dice, surface_distances

    ignored = reference == IGNORE
    predicted = (prediction == index) & ~ignored
    expected = reference == index
    count = Overlap.of(predicted, expected, voxels)
    distance: float | None = None
    agreement: float | None = None
    if count.prediction and count.reference:
        distances = surface_distances(predicted, expected, grid.affine[:3, :3], ignored if ignored.any() else None)
        distance, agreement = hd95(distances), surface_dice(distances, tolerance_mm)
    elif count.prediction or count.reference:
        distance, agreement = grid.diagonal_mm, 0.0
    present = bool(count.prediction or count.reference)
    return MetricValues(
        dice=count.dice,
        hd95_mm=distance,
        surface_dice=agreement,
        sensitivity=count.sensitivity,
        specificity=count.specificity if present else None,
        reference_ml=count.reference * grid.voxel_ml,
        prediction_ml=count.prediction * grid.voxel_ml,
    )
