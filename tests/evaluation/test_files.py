"""Predictions are matched with references by name, across formats, on real masks; failures are reported by case."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from farvox.errors import DataError, UsageError
from farvox.evaluation import evaluate, evaluate_files
from farvox.geometry import Grid
from farvox.io import Scan, case_id_from_path, read_label, write_mask
from farvox.labels import LabelTable
from farvox.progress import NullProgress
from tests.conftest import real_data

LABELS = LabelTable.from_mapping({1: "inner", 4: "outer"})


class Recorder(NullProgress):
    """Records progress."""

    def __init__(self):
        self.updates = []

    def update(self, task, fraction, **info):
        self.updates.append((task, fraction, info))


def write(path, values, spacing=(1.0, 1.0, 1.0)):
    grid = Grid(values.shape, np.diag([*spacing, 1.0]))
    write_mask(path, values, Scan(values[None], grid, path))
    return path


def nested(shift=0):
    values = np.zeros((9, 8, 7), np.uint8)
    values[2:6, 2:6, 2:5] = 4
    values[3:5, 3:5, 3:4] = 1
    return np.roll(values, shift, 0)


@pytest.mark.parametrize("name", ["mscmrseg_bssfp", "msd_hippocampus"])
def test_real_masks_in_another_format_agree_with_themselves(name, tmp_path):
    """Non-consecutive values and oblique axes: the metrics are those of identical masks."""
    references = sorted((real_data(name) / "labelsTr").glob("*.nii.gz"))[:3]
    for path, ending in zip(references, (".mha", ".nrrd", ".nii"), strict=True):
        values, grid = read_label(path)
        write_mask(
            tmp_path / (case_id_from_path(path) + ending), values.astype(np.uint16), Scan(values[None], grid, path)
        )
    document = evaluate(tmp_path, references[0].parent)
    assert [case.case for case in document.cases] == [case_id_from_path(path) for path in references]
    assert document.failed == ()
    assert any("without prediction" in note for note in document.notes)
    for case, path in zip(document.cases, references, strict=True):
        values, grid = read_label(path)
        for value, metrics in case.labels.items():
            assert [metrics[metric] for metric in ("dice", "hd95_mm", "surface_dice", "sensitivity")] == [
                1,
                0,
                1,
                1,
            ]
            volume = np.count_nonzero(values == value) * np.prod(grid.spacing) / 1000
            assert metrics.reference_ml == metrics.prediction_ml == pytest.approx(volume, rel=1e-4)
    spacings = [np.prod(read_label(path)[1].spacing) ** (1 / 3) for path in references]
    assert document.tolerance_mm == pytest.approx(np.median(spacings), abs=1e-6)


def test_real_mask_moved_by_a_voxel(tmp_path):
    """Dice is that of adjacent slices, and no surface distance exceeds one voxel."""
    path = min((real_data("mscmrseg_bssfp") / "labelsTr").glob("*.nii.gz"))
    values, grid = read_label(path)
    step = float(grid.spacing[0])
    prediction = tmp_path / "moved.nii.gz"
    write_mask(prediction, np.roll(values, 1, 0).astype(np.uint16), Scan(values[None], grid, path))
    document = evaluate(prediction, path, tolerance_mm=step)
    for value, metrics in document.cases[0].labels.items():
        mask = values == value
        assert metrics.dice == pytest.approx(np.count_nonzero(mask[1:] & mask[:-1]) / np.count_nonzero(mask))
        assert 0 < metrics.hd95_mm <= step * (1 + 1e-6)
        assert metrics.surface_dice == 1


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("a.mha", "a.nii.gz"),
        ("a.nii.gz", "a_segmentation.mhd"),
        ("a.nii", "a_seg.nrrd"),
        ("a_0000.nii.gz", "a.nii.gz"),
        ("series.nii.gz", "series.mha"),
        ("v1.2_b.nii.gz", "v1.2_b.mha"),
    ],
)
def test_names_that_match(prediction, reference, tmp_path):
    write(tmp_path / "p" / prediction, nested(1))
    write(tmp_path / "r" / reference, nested())
    write(tmp_path / "r" / "other.nii.gz", nested(2))
    document = evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS, tolerance_mm=1)
    assert [case.case for case in document.cases] == [case_id_from_path(tmp_path / prediction)]
    assert document.cases[0].labels[1].dice == pytest.approx(0.5)
    assert document.notes == ("1 reference(s) without prediction: other",)


def test_a_scan_in_the_folder_of_its_reference_is_not_taken_for_it(tmp_path):
    write(tmp_path / "p" / "Case00.mhd", nested())
    write(tmp_path / "r" / "Case00.mhd", np.full((9, 8, 7), 77, np.uint8))
    write(tmp_path / "r" / "Case00_segmentation.mhd", nested())
    document = evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS)
    assert document.cases[0].mean.dice == 1
    assert not any("without prediction" in note for note in document.notes)


def test_two_files_need_no_common_name(tmp_path):
    prediction, reference = write(tmp_path / "x.mha", nested()), write(tmp_path / "y.nii.gz", nested())
    document = evaluate(prediction, reference, labels=LABELS)
    assert document.cases[0].case == "x"
    assert document.cases[0].mean.dice == 1


def test_pairs_record_their_scans(tmp_path):
    prediction, reference = write(tmp_path / "x.mha", nested(1)), write(tmp_path / "y.nii.gz", nested(), (1, 1, 8))
    other = write(tmp_path / "z.nii.gz", nested(1), (1, 1, 8))
    pairs = [("one", other, reference), ("two", prediction, reference)]
    document = evaluate_files(pairs, LABELS, scans={"one": tmp_path / "image.nii.gz"})
    assert document.tolerance_mm == 2
    assert [failure.case for failure in document.failed] == ["two"]
    [case] = document.cases
    assert case.case == "one"
    assert (case.prediction, case.reference) == (str(other), str(reference))
    assert case.scan == str(tmp_path / "image.nii.gz")
    assert case.labels == evaluate(other, reference, labels=LABELS).cases[0].labels


def test_failures_are_reported_by_case(tmp_path):
    for name in ("good", "moved", "large", "value", "half", "broken"):
        write(tmp_path / "r" / f"{name}.nii.gz", nested())
        write(tmp_path / "p" / f"{name}.nii.gz", nested())
    write(tmp_path / "p" / "moved.nii.gz", nested(), spacing=(1, 1, 1.2))
    write(tmp_path / "p" / "large.nii.gz", np.zeros((9, 8, 8), np.uint8))
    write(tmp_path / "p" / "value.nii.gz", nested() * 2)
    path = tmp_path / "p" / "broken.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    progress = Recorder()
    document = evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS, progress=progress)
    errors = {failure.case: failure.error for failure in document.failed}
    assert [case.case for case in document.cases] == ["good", "half"]
    assert sorted(errors) == ["broken", "large", "moved", "value"]
    assert "affine differs by up to 1.2 mm" in errors["moved"]
    assert "shape 9×8×8 against 9×8×7" in errors["large"]
    assert "prediction value.nii.gz: label holds the value(s) 2, 8" in errors["value"]
    assert all(f"case {case}: " in error and "\n" not in error for case, error in errors.items())
    assert document.summary.foreground.dice.cases == 2
    assert progress.updates[0] == ("evaluate", 1 / 6, {"case": "broken"})
    assert progress.updates[-1] == ("evaluate", 1, {"case": "value"})


def test_ignore_value_in_the_reference(tmp_path):
    labels = LabelTable.from_mapping({1: "inner", 4: "outer"}, ignore=9)
    reference = nested()
    reference[5] = 9
    write(tmp_path / "p" / "a.nii.gz", nested())
    write(tmp_path / "r" / "a.nii.gz", reference)
    metrics = evaluate(tmp_path / "p", tmp_path / "r", labels=labels).cases[0].labels[4]
    assert (metrics.dice, metrics.prediction_ml) == (1, pytest.approx((4 * 4 * 3 - 4 - 12) / 1000))


def test_labels_are_those_of_predictions_and_references(tmp_path):
    reference = nested()
    write(tmp_path / "p" / "a.nii.gz", np.where(reference == 1, 6, 0).astype(np.uint8))
    write(tmp_path / "r" / "a.nii.gz", reference)
    document = evaluate(tmp_path / "p", tmp_path / "r")
    assert [label.value for label in document.labels] == [1, 4, 6]


def test_prediction_without_reference_names_the_case(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "p" / f"{name}.nii.gz", nested())
    write(tmp_path / "r" / "a.nii.gz", nested())
    with pytest.raises(DataError, match="case b: no reference"):
        evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS)


def test_nothing_to_compare(tmp_path):
    write(tmp_path / "p" / "a.nii.gz", nested())
    write(tmp_path / "r" / "b.nii.gz", nested())
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"predictions: a; references: b"):
        evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS)
    with pytest.raises(DataError, match="contains no masks"):
        evaluate(tmp_path / "none", tmp_path / "r", labels=LABELS)
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tmp_path / "p", tmp_path / "missing", labels=LABELS)
    with pytest.raises(UsageError, match="-1 mm"):
        evaluate(tmp_path / "p", tmp_path / "p", labels=LABELS, tolerance_mm=-1)


def test_two_formats_of_one_case_are_ambiguous(tmp_path):
    write(tmp_path / "p" / "a.nii.gz", nested())
    write(tmp_path / "r" / "a.nii.gz", nested())
    shutil.copy(tmp_path / "p" / "a.nii.gz", tmp_path / "p" / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii, a\.nii\.gz"):
        evaluate(tmp_path / "p", tmp_path / "r", labels=LABELS)


def test_masks_without_structures_need_a_table(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="pass the label table"):
        evaluate(path, path)


def test_arrays_are_compared_like_files(tmp_path):
    spacing = (1.0, 2.0, 4.0)
    prediction, reference = nested(1), nested()
    write(tmp_path / "p.nii.gz", prediction, spacing)
    write(tmp_path / "r.nii.gz", reference, spacing)
    files = evaluate(str(tmp_path / "p.nii.gz"), str(tmp_path / "r.nii.gz"), out=str(tmp_path / "out" / "metrics.json"))
    arrays = evaluate(prediction, reference, affine=np.diag([*spacing, 1.0]))
    assert arrays.cases[0].labels == files.cases[0].labels
    assert arrays.notes == files.notes
    assert arrays.labels == files.labels
    assert arrays.tolerance_mm == 2
    assert (tmp_path / "out" / "metrics.csv").exists()
    named = evaluate(prediction, reference, affine=np.diag([*spacing, 1.0]), labels={1: "inner", 4: "outer"})
    assert [label.name for label in named.labels] == ["inner", "outer"]
    assert named.summary.labels[1].dice.mean == pytest.approx(0.5)


def test_arrays_need_an_affine_and_equal_shapes(tmp_path):
    with pytest.raises(UsageError, match="arrays without an affine"):
        evaluate(nested(), nested())
    with pytest.raises(UsageError, match="a path and an array"):
        evaluate(tmp_path, nested(), affine=np.eye(4))
    with pytest.raises(DataError, match="prediction of shape"):
        evaluate(nested()[1:], nested(), affine=np.eye(4))
    with pytest.raises(DataError, match="three axes"):
        evaluate(nested()[0], nested()[0], affine=np.eye(4))


def test_the_label_table_of_the_dataset_is_used(tmp_path):
    folder = tmp_path / "data"
    write(folder / "imagesTr" / "a.nii.gz", nested())
    write(folder / "labelsTr" / "a.nii.gz", nested())
    write(tmp_path / "p" / "a.nii.gz", nested())
    content = {
        "name": "two",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "inner", "4": "outer"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    metrics = evaluate(tmp_path / "p", folder / "labelsTr")
    assert [label.name for label in metrics.labels] == ["inner", "outer"]
    assert not any("no label table" in note for note in metrics.notes)
