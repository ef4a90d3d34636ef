"""Metrics of a case: hand-computed values, absent structures, ignored voxels, boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from farvox.errors import DataError
from farvox.evaluation import METRICS, default_tolerance_mm, evaluate_case
from farvox.geometry import Grid
from farvox.labels import IGNORE, LabelTable

LABELS = LabelTable.from_mapping({3: "spleen", 7: "liver"})
GRID = Grid((12, 10, 8), np.diag([1.0, 2.0, 3.0, 1.0]))


def empty():
    return np.zeros(GRID.shape, np.uint8)


def with_box(index, *ranges):
    classes = empty()
    classes[tuple(slice(*r) for r in ranges)] = index
    return classes


def test_hand_computed_case():
    """Plates one voxel thick and one voxel (2 mm) apart along J for spleen, identical boxes for liver."""
    prediction, reference = empty(), empty()
    reference[1:5, 3, 1:6] = 1
    prediction[1:5, 4, 1:6] = 1
    reference[8:10, 7:9, 0:8] = prediction[8:10, 7:9, 0:8] = 2
    result = evaluate_case(prediction, reference, GRID, LABELS, tolerance_mm=2)
    assert result.labels[3].model_dump() == pytest.approx(
        {
            "dice": 0,
            "hd95_mm": 2,
            "surface_dice": 1,
            "sensitivity": 0,
            "specificity": 920 / 940,
            "reference_ml": 0.12,
            "prediction_ml": 0.12,
        }
    )
    assert result.labels[7].model_dump() == pytest.approx(
        {
            "dice": 1,
            "hd95_mm": 0,
            "surface_dice": 1,
            "sensitivity": 1,
            "specificity": 1,
            "reference_ml": 0.192,
            "prediction_ml": 0.192,
        }
    )
    assert result.mean.model_dump() == pytest.approx(
        {"dice": 0.5, "hd95_mm": 1, "surface_dice": 1, "sensitivity": 0.5, "specificity": (920 / 940 + 1) / 2}
    )


def test_absent_in_both_has_no_metrics_and_does_not_change_the_mean():
    both = with_box(2, (2, 5), (2, 5), (2, 5))
    result = evaluate_case(both, both, GRID, LABELS, 1)
    assert result.labels[3].model_dump() == dict.fromkeys(METRICS, None) | {"reference_ml": 0, "prediction_ml": 0}
    assert result.mean.model_dump() == {"dice": 1, "hd95_mm": 0, "surface_dice": 1, "sensitivity": 1, "specificity": 1}


def test_absent_in_prediction_only():
    metrics = evaluate_case(empty(), with_box(1, (2, 5), (2, 5), (2, 5)), GRID, LABELS, 1).labels[3]
    assert metrics.model_dump() == pytest.approx(
        {
            "dice": 0,
            "hd95_mm": np.sqrt(11**2 + 18**2 + 21**2),
            "surface_dice": 0,
            "sensitivity": 0,
            "specificity": 1,
            "reference_ml": 0.162,
            "prediction_ml": 0,
        }
    )


def test_absent_in_reference_only():
    metrics = evaluate_case(with_box(1, (2, 5), (2, 5), (2, 5)), empty(), GRID, LABELS, 1).labels[3].model_dump()
    assert metrics.pop("sensitivity") is None
    assert metrics == pytest.approx(
        {
            "dice": 0,
            "hd95_mm": np.sqrt(11**2 + 18**2 + 21**2),
            "surface_dice": 0,
            "specificity": 933 / 960,
            "reference_ml": 0,
            "prediction_ml": 0.162,
        }
    )


def test_means_are_undefined_without_structures():
    assert set(evaluate_case(empty(), empty(), GRID, LABELS, 1).mean.model_dump().values()) == {None}


def test_specificity_is_undefined_where_the_reference_fills_the_scan():
    whole = np.full(GRID.shape, 1, np.uint8)
    assert evaluate_case(whole, whole, GRID, LABELS, 1).labels[3].specificity is None


def test_ignored_voxels_are_excluded():
    """Predictions on ignored voxels do not count, and a structure predicted only there is absent."""
    reference = with_box(1, (2, 6), (2, 6), (2, 6))
    reference[6:9] = IGNORE
    prediction = with_box(1, (2, 8), (2, 6), (2, 6))
    prediction[7:9, 0:2, 0:2] = 2
    result = evaluate_case(prediction, reference, GRID, LABELS, 0)
    assert result.labels[3].model_dump() == pytest.approx(
        {
            "dice": 1,
            "hd95_mm": 0,
            "surface_dice": 1,
            "sensitivity": 1,
            "specificity": 1,
            "reference_ml": 0.384,
            "prediction_ml": 0.384,
        }
    )
    assert result.labels[7].dice is None
    assert result.labels[7].prediction_ml == 0
    outside = with_box(1, (9, 10), (0, 1), (0, 1))
    specificity = evaluate_case(outside, reference, GRID, LABELS, 0).labels[3].specificity
    assert specificity == pytest.approx(1 - 1 / (960 - 240 - 64))


def test_no_surface_metrics_if_ignored_voxels_hide_the_border():
    reference = np.full(GRID.shape, IGNORE, np.uint8)
    reference[5, 5, 5] = 1
    metrics = evaluate_case(with_box(1, (4, 7), (4, 7), (4, 7)), reference, GRID, LABELS, 1).labels[3]
    assert (metrics.dice, metrics.hd95_mm, metrics.surface_dice) == (1, None, None)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.uint8, (4, 3, 3), elements=st.sampled_from([0, 1, 2])),
    arrays(np.uint8, (4, 3, 3), elements=st.sampled_from([0, 1, 2, IGNORE])),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_position_in_a_larger_scan_does_not_matter(prediction, reference, start):
    """Only specificity and the diagonal depend on the size of the scan; axes and memory order do not matter either."""
    box = tuple(slice(first, first + n) for first, n in zip(start, prediction.shape, strict=True))
    scans = []
    for classes in (prediction, reference):
        scan = empty()
        scan[box] = classes
        scans.append(scan)
    reoriented = Grid((8, 10, 12), GRID.affine[:, [2, 1, 0, 3]])
    result = evaluate_case(*scans, GRID, LABELS, 2).labels
    other = evaluate_case(*[scan.T for scan in scans], reoriented, LABELS, 2).labels
    small = evaluate_case(prediction, reference, Grid((4, 3, 3), GRID.affine), LABELS, 2).labels
    for value, metrics in result.items():
        assert other[value].model_dump() == pytest.approx(metrics.model_dump(), nan_ok=False)
        for metric in ("dice", "sensitivity", "reference_ml", "prediction_ml"):
            assert small[value][metric] == metrics[metric]


@settings(deadline=None, max_examples=40)
@given(*[arrays(np.uint8, (4, 3, 3), elements=st.sampled_from([0, 1, 2]))] * 2)
def test_prediction_and_reference_exchanged(first, second):
    grid = Grid((4, 3, 3), GRID.affine)
    one, other = (evaluate_case(a, b, grid, LABELS, 2).labels for a, b in ((first, second), (second, first)))
    for value, metrics in one.items():
        for metric in ("dice", "hd95_mm", "surface_dice"):
            assert other[value][metric] == pytest.approx(metrics[metric])
        assert other[value].prediction_ml == metrics.reference_ml


def test_shapes_that_differ_from_the_grid():
    with pytest.raises(DataError, match="both \\(12, 10, 8\\)"):
        evaluate_case(empty()[1:], empty(), GRID, LABELS, 1)


def test_default_tolerance_is_the_median_geometric_mean_spacing():
    grids = [Grid((2, 2, 2), np.diag([*spacing, 1])) for spacing in ((1, 1, 8), (1, 1, 1), (5, 5, 5))]
    assert default_tolerance_mm(grids) == 2
