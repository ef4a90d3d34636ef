"""Every bad case is found, named and explained, and the good ones beside it are still described."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from farvox.data import CaseCheck, check, load_case, read_dataset
from farvox.errors import DataError
from farvox.progress import NullProgress
from farvox.types import Array
from tests.conftest import real_data
from tests.data.files import blob, msd, noise, save

SHAPE = (6, 5, 4)
IMAGE, LABEL = noise(SHAPE), blob(SHAPE, 1, 2)


def with_value(array: Array, value: float) -> Array:
    """float32 copy with one voxel set."""
    copy = array.astype(np.float32)
    copy[2, 2, 2] = value
    return copy


BAD: dict[str, tuple[Array | None, Array | None, str]] = {
    "image missing": (None, LABEL, r"no image file bad\.nii\.gz in .*add the file or leave the case out"),
    "label missing": (IMAGE, None, r"no label file bad\.nii\.gz in .*expected: one label a training case"),
    "NaN": (with_value(IMAGE, np.nan), LABEL, "the image contains NaN or infinite values; expected: finite"),
    "infinite": (with_value(IMAGE, -np.inf), LABEL, "the image contains NaN or infinite values"),
    "constant": (np.full(SHAPE, 7, np.int16), LABEL, "the image is constant: every voxel is 7"),
    "shape": (IMAGE, blob((6, 5, 3), 1), "label and image do not match: shape 6×5×3 against 6×5×4"),
    "image 4D": (noise((*SHAPE, 3)), LABEL, r"the image has 3 channels; expected: 1 \(CT\)"),
    "image 2D": (noise((6, 5)), LABEL, r"bad\.nii\.gz: 2 dimensions \(6×5\); expected: 3"),
    "label 4D": (IMAGE, np.stack([LABEL, LABEL], -1), "the label has 2 channels; expected: one integer a voxel"),
    "unknown value": (IMAGE, blob(SHAPE, 1, 9), r"label holds the value\(s\) 9; expected: 0, 1, 2"),
    "fractional": (IMAGE, with_value(LABEL, 0.5), r"fractional values such as 0\.5; .*nearest-neighbour"),
    "label NaN": (IMAGE, with_value(LABEL, np.nan), "label holds NaN"),
    "empty": (IMAGE, blob(SHAPE), "the label is empty: .*expected: at least one structure"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_case_is_named_and_the_good_one_described(tmp_path: Path, fault: str) -> None:
    image, label, words = BAD[fault]
    dataset = read_dataset(msd(tmp_path, {"bad": (image, label), "good": (IMAGE, LABEL)}))
    with pytest.raises(DataError, match=rf"^case bad: .*{words}") as caught:
        load_case(dataset, dataset.cases[0])
    assert "\n" not in str(caught.value)
    bad, good = check(dataset).cases
    assert bad.id == "bad"
    assert bad.error is not None
    assert bad.error.startswith(caught.value.found)
    assert bad.hint == caught.value.hint
    assert good == CaseCheck(
        id="good",
        shape=SHAPE,
        spacing=(1.0, 1.0, 1.0),
        axcodes="RAS",
        dtype="int16",
        intensities=(float(IMAGE.min()), float(IMAGE.max())),
        labels=(1, 2),
    )


def test_affine_mismatch_and_singular_affine(tmp_path: Path) -> None:
    root = msd(tmp_path, {"moved": (IMAGE, LABEL), "flat": (IMAGE, LABEL), "half": (IMAGE, LABEL)})
    moved = np.eye(4)
    moved[:3, 3] = (0, 0, 2)
    save(root / "labelsTr" / "moved.nii.gz", LABEL, moved)
    file = nib.Nifti1Image(IMAGE, np.eye(4))
    file.header["srow_y"] = 0
    nib.save(nib.Nifti1Image(IMAGE, None, file.header), root / "imagesTr" / "flat.nii.gz")
    half = save(root / "imagesTr" / "half.nii.gz", noise((20, 20, 20)))
    half.write_bytes(half.read_bytes()[:5000])
    problems = {case.id: case.error for case in check(read_dataset(root)).cases}
    assert problems == {
        "moved": "label and image do not match: affine differs by up to 2 mm (label against image)"
        " (expected: label on the image's grid)",
        "flat": "flat.nii.gz: the affine is singular: voxel spacing 1, 0, 1 mm"
        " (expected: three independent axes with positive spacing)",
        "half": "half.nii.gz: the file is cut short",
    }


def test_constant_channel_and_channels_on_other_grids(tmp_path: Path) -> None:
    pair = np.stack([IMAGE, np.zeros_like(IMAGE)], -1)
    dataset = read_dataset(msd(tmp_path / "m", {"a": (pair, LABEL)}, modality={"0": "T1", "1": "T2"}))
    with pytest.raises(DataError, match=r"^case a: channel 'T2' is constant: every voxel is 0"):
        load_case(dataset, dataset.cases[0])
    for index, part in enumerate(("flair", "t1", "t1ce", "t2")):
        save(tmp_path / "b" / "c1" / f"c1_{part}.nii.gz", noise((6, 5, 4 + (index == 3))))
    save(tmp_path / "b" / "c1" / "c1_seg.nii.gz", LABEL)
    dataset = read_dataset(tmp_path / "b")
    words = r"^case c1: channel 'T2' \(c1_t2\.nii\.gz\) is on another grid than 'FLAIR': shape 6×5×5 against 6×5×4"
    with pytest.raises(DataError, match=words):
        load_case(dataset, dataset.cases[0])


def test_notes_absent_labels_and_progress(tmp_path: Path) -> None:
    affine = np.diag([1, 1, 6, 1.0])
    root = msd(tmp_path, {"a": (IMAGE, blob(SHAPE, 1))}, test=["./imagesTs/t.nii.gz"])
    save(root / "labelsTr" / "a.nii.gz", blob(SHAPE, 1).astype(np.float32), affine)
    file = nib.Nifti1Image(IMAGE, affine)
    file.set_sform(affine, 1)
    file.set_qform(np.diag([1, 1, 5, 1.0]), 1)
    nib.save(file, root / "imagesTr" / "a.nii.gz")
    save(root / "imagesTs" / "t.nii.gz", IMAGE[..., :1])
    ticks: list[float] = []

    class Ticks(NullProgress):
        def update(self, task: str, fraction: float, **info: object) -> None:
            ticks.append(fraction)

    result = check(read_dataset(root), progress=Ticks())
    a, t = result.cases
    assert a.error is None
    assert a.notes == (
        "spacing 6 mm is 6 times the finest axis",
        "qform and sform of the header disagree: affine differs by up to 3 mm; the sform is used",
        "label stored as float32",
    )
    assert (t.id, t.error, t.labels, t.notes) == ("t", None, None, ("a single slice", "no label"))
    assert ticks == [0.5, 1.0]
    assert result.labels_never_present == [(2, "spleen")]


def test_real_labels_stored_as_floats_are_only_noted() -> None:
    root = real_data("msd_hippocampus")
    dataset = read_dataset(root, images="imagesTr/hippocampus_00*.nii.gz", labels="labelsTr/hippocampus_00*.nii.gz")
    checks = {case.id: case for case in check(dataset).cases}
    assert all(case.error is None for case in checks.values())
    assert checks["3"].notes == ("label stored as float32",)
    assert checks["1"].notes == ()
    assert checks["1"].labels == (1, 2)


def test_real_bad_cases_are_found() -> None:
    root = real_data("msd_hippocampus") / "excluded"
    dataset = read_dataset(root, images="images/*.nii.gz", labels="labels/*.nii.gz")
    problems = {case.id: case.error or "" for case in check(dataset).cases}
    assert problems["hippocampus_010"] == "label hippocampus_010.nii.gz has no image"
    assert problems["hippocampus_118"].startswith("the image has no label")
    crossed = read_dataset(root, images="images/hippocampus_118.nii.gz", labels="labels/hippocampus_010.nii.gz")
    (case,) = check(crossed).cases
    assert (case.error or "").startswith("label and image do not match: shape 36×50×31 against")
