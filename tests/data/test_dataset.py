"""Datasets of arrays and files in Python: length, selection, tables, figures, and everything a folder can do."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from farvox import Case, Dataset, check
from farvox.data import load_case
from farvox.errors import DataError

from .files import blob, save

SHAPE = (9, 8, 7)
AFFINE = np.diag([-1.5, 1.5, 3, 1])
IMAGE = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
LABEL = blob(SHAPE, 1, 2)
LABELS = {1: "liver", 2: "spleen"}


def make(*ids: str) -> Dataset:
    return Dataset.from_cases([Case(id, IMAGE, AFFINE, LABEL) for id in ids], LABELS, ["CT"], name="mine")


def test_length_selection_and_one_line() -> None:
    dataset = make("a", "b", "c")
    assert (len(dataset), [case.id for case in dataset]) == (3, ["a", "b", "c"])
    assert dataset["b"] is dataset[1]
    assert "c" in dataset
    assert "d" not in dataset
    assert repr(dataset) == "Dataset 'mine': 3 cases, 1 channel (CT), 2 labels (liver, spleen)"
    assert [case.id for case in dataset.subset(["c", "a"])] == ["a", "c"]
    with pytest.raises(KeyError, match="no case 'cc'; did you mean 'c'"):
        dataset["cc"]
    with pytest.raises(DataError, match="case d: no such case in the dataset"):
        dataset.subset(["a", "d"])
    html = dataset._repr_html_()
    assert html.count("<tr>") == 4
    assert "<td>b</td><td>b_image.nii.gz</td><td>b_label.nii.gz</td>" in html


def test_arrays_images_and_files_are_the_same_cases(tmp_path: Path) -> None:
    save(tmp_path / "i.nii.gz", IMAGE, AFFINE)
    save(tmp_path / "l.nii.gz", LABEL, AFFINE)
    dataset = Dataset.from_cases(
        [
            Case("arrays", IMAGE, AFFINE, LABEL),
            Case("files", str(tmp_path / "i.nii.gz"), label=tmp_path / "l.nii.gz"),
            Case("nibabel", nib.Nifti1Image(IMAGE, AFFINE), label=nib.Nifti1Image(LABEL, AFFINE)),
            Case("bool and float", IMAGE.astype(np.float64), AFFINE, LABEL.astype(np.int64)),
            Case("unlabelled", IMAGE, AFFINE),
        ],
        LABELS,
        ["CT"],
    )
    for case in dataset:
        loaded = load_case(dataset, case)
        np.testing.assert_allclose(loaded.image[0], IMAGE, rtol=1e-6)
        np.testing.assert_array_equal(loaded.classes, LABEL)
        np.testing.assert_allclose(loaded.grid.affine, AFFINE)
    assert [case.id for case in dataset.unlabelled] == ["unlabelled"]
    assert not check(dataset).problems
    assert repr(dataset).startswith("Dataset 'cases': 4 cases, 1 without label, 1 channel")


def test_channels_of_an_array_and_of_files(tmp_path: Path) -> None:
    save(tmp_path / "t1.nii.gz", IMAGE, AFFINE)
    save(tmp_path / "t2.nii.gz", IMAGE + 1, AFFINE)
    cases = [
        Case("array", np.stack([IMAGE, IMAGE + 1]), AFFINE, LABEL),
        Case("files", [tmp_path / "t1.nii.gz", str(tmp_path / "t2.nii.gz")], AFFINE, LABEL),
    ]
    dataset = Dataset.from_cases(cases, LABELS, ["T1", "T2"])
    for case in dataset:
        np.testing.assert_allclose(load_case(dataset, case).image, np.stack([IMAGE, IMAGE + 1]), rtol=1e-6)
    assert not check(dataset).problems


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("p", IMAGE), r"^case p: an array without affine; hint: give the 4×4 affine"),
        (Case("p", IMAGE, np.eye(3)), r"^case p: an affine of shape 3×3; expected: 4×4"),
        (Case("p", IMAGE, np.zeros((4, 4))), "^case p: the affine is singular"),
        (Case("p", IMAGE[0], AFFINE), r"^case p: an array of 2 dimensions; expected: \(I, J, K\)"),
        (Case("p/q", IMAGE, AFFINE), "id 'p/q'; expected: a name without slashes"),
    ],
)
def test_cases_that_cannot_be_used(case: Case, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Dataset.from_cases([case], LABELS, ["CT"])
    with pytest.raises(DataError, match="case a: two cases of this id"):
        make("a", "a")


def test_a_label_of_another_shape_is_found_by_check() -> None:
    dataset = Dataset.from_cases([Case("p", IMAGE, AFFINE, LABEL[1:])], LABELS, ["CT"])
    assert str(check(dataset).problems[0].error).startswith("label and image do not match: shape 8×8×7 against 9×8×7")


def test_a_case_is_shown_in_three_planes_with_its_labels() -> None:
    for case in (make("a")["a"], Case("a", IMAGE, AFFINE, LABEL), Case("a", IMAGE, AFFINE)):
        axes = [a for a in case.show().axes if a.get_label() in ("axial", "coronal", "sagittal")]
        assert [a.get_label() for a in axes] == ["axial", "coronal", "sagittal"]
        assert all(a.images for a in axes)
