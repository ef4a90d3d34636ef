"""All figures of one case, each label in its own box, so that memory follows the structure and not the scan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import find_objects

from farvox.errors import DataError
from farvox.labels import IGNORE, LabelTable
from farvox.metrics import Overlap, hd95, surface_dice, surface_distances
from farvox.types import Array

if TYPE_CHECKING:
    from farvox.geometry import Grid

ABSENT_RULE = (
    "A structure absent from prediction and reference has no figures but volumes of 0 and is left out of all means; "
    "absent from only one of them it counts Dice 0, surface Dice 0 and HD95 = the diagonal of the scan; "
    "sensitivity is undefined where the reference lacks the structure."
)
"""How structures that are missing count, for everyone who reads the figures."""

QUALITY_METRICS = ("dice", "hd95_mm", "surface_dice", "sensitivity", "specificity")
"""Figures that say how good a prediction is; means over labels are taken of these."""

METRICS = (*QUALITY_METRICS, "reference_ml", "prediction_ml")
"""All figures of a label, in the order of tables."""


def evaluate_case(
    prediction: Array, reference: Array, grid: Grid, labels: LabelTable, tolerance_mm: float
) -> dict[str, Any]:
    """Compare one prediction with its reference.

    Voxels whose reference is `IGNORE` take no part, in volumes neither; a prediction of `IGNORE` counts as background.

    Args:
        prediction: Class indices (I, J, K), uint8.
        reference: Class indices (I, J, K), uint8.
        grid: Where the voxels of both lie.
        labels: What the classes mean.
        tolerance_mm: Distance within which surfaces agree, for surface Dice, mm.

    Returns:
        `{"labels": {"<value>": {metric: float or None}}, "mean": {metric: float or None}}`, with the names of
        `METRICS`; the mean over the labels where a figure is defined, volumes left out.

    Raises:
        DataError: The arrays do not fit the grid.
    """
    if not prediction.shape == reference.shape == grid.shape:
        raise DataError(
            f"prediction of shape {prediction.shape} and reference of shape {reference.shape}",
            allowed=f"both {grid.shape}, as their grid",
        )
    # Masks straight from NIfTI files lie in Fortran order, in which the search for boxes takes three times as long.
    prediction, reference = np.ascontiguousarray(prediction), np.ascontiguousarray(reference)
    voxels = int(np.count_nonzero(reference != IGNORE))
    boxes = zip(
        find_objects(prediction, max_label=labels.classes - 1),
        find_objects(reference, max_label=labels.classes - 1),
        strict=True,
    )
    figures = {}
    for (index, value, _), pair in zip(labels.foreground, boxes, strict=True):
        box = _joint_box(pair, grid.shape)
        figures[str(value)] = _figures(prediction[box], reference[box], index, voxels, grid, tolerance_mm)
    return {
        "labels": figures,
        "mean": {metric: mean_of_defined(row[metric] for row in figures.values()) for metric in QUALITY_METRICS},
    }


def default_tolerance_mm(grids: Iterable[Grid]) -> float:
    """Tolerance for surface Dice when none is given: about one voxel.

    Args:
        grids: Grids of the cases, at least one.

    Returns:
        Median over the grids of the geometric mean spacing, mm, rounded to a millionth.
    """
    return round(float(np.median([np.prod(grid.spacing) ** (1 / 3) for grid in grids])), 6)


def mean_of_defined(figures: Iterable[float | None]) -> float | None:
    """Mean of the defined figures, None when there is none."""
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if defined else None


def _joint_box(pair: tuple[tuple[slice, ...] | None, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Smallest box around both masks and one voxel more, where ignored neighbours may lie; empty for empty masks."""
    present = [box for box in pair if box is not None]
    if not present:
        return (slice(0, 0),) * 3
    return tuple(
        slice(max(min(box[axis].start for box in present) - 1, 0), min(max(box[axis].stop for box in present) + 1, n))
        for axis, n in enumerate(shape)
    )


def _figures(
    prediction: Array, reference: Array, index: int, voxels: int, grid: Grid, tolerance_mm: float
) -> dict[str, float | None]:
    ignored = reference == IGNORE
    predicted = (prediction == index) & ~ignored
    wanted = reference == index
    count = Overlap.of(predicted, wanted, voxels)
    distance: float | None = None
    agreement: float | None = None
    if count.prediction and count.reference:
        distances = surface_distances(predicted, wanted, grid.affine[:3, :3], ignored if ignored.any() else None)
        distance, agreement = hd95(distances), surface_dice(distances, tolerance_mm)
    elif count.prediction or count.reference:
        distance, agreement = grid.diagonal_mm, 0.0
    present = bool(count.prediction or count.reference)
    return {
        "dice": count.dice,
        "hd95_mm": distance,
        "surface_dice": agreement,
        "sensitivity": count.sensitivity,
        "specificity": count.specificity if present else None,
        "reference_ml": count.reference * grid.voxel_ml,
        "prediction_ml": count.prediction * grid.voxel_ml,
    }
