"""Dataset layouts: which files make up which case, what channels and labels mean, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from farvox.data import Dataset, load_case, read_dataset
from farvox.errors import DataError, UsageError
from tests.conftest import real_data
from tests.data.files import blob, msd, noise, save, write_json

SHAPE = (6, 5, 4)
IMAGE, LABEL = noise(SHAPE), blob(SHAPE, 1, 2)


def listing(dataset: Dataset) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Case id → (image names, label name)."""
    return {
        case.id: (tuple(path.name for path in case.images), case.label.name if case.label else None)
        for case in dataset.cases
    }


REAL = {
    "msd_hippocampus": (208, 26, ("MRI",), (0, 1, 2)),
    "chaos_mr_t2spir": (16, 0, ("MRI",), (0, 1, 2, 3, 4)),
    "acdc_h5derived": (24, 0, ("MRI",), (0, 1, 2, 3)),
    "mscmrseg_bssfp": (12, 0, ("MRI",), (0, 200, 500, 600)),
    "la2018_h5derived": (12, 0, ("MRI",), (0, 1)),
    "prostate_mr_trus/mr": (10, 0, ("MR",), (0, 1)),
    "prostate_mr_trus/us": (10, 0, ("TRUS",), (0, 1)),
    "mouse_brain_fvb": (8, 0, ("MRI",), tuple(sorted({*range(41)} - {22, 30, 37}))),
    "brats2015_deepmedic": (6, 0, ("FLAIR", "T1c"), (0, 1, 2, 3, 4)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_folders_are_understood_and_their_cases_load(name: str) -> None:
    dataset = read_dataset(real_data(name))
    assert (len(dataset.cases), len(dataset.unlabelled), dataset.channels, dataset.labels.values) == REAL[name]
    assert dataset.layout == "msd"
    for files in (dataset.cases[0], dataset.cases[-1]):
        case = load_case(dataset, files)
        assert case.image.shape == (len(dataset.channels), *case.grid.shape)
        assert case.classes is not None
        assert case.classes.shape == case.grid.shape
        assert set(np.unique(case.classes)) == set(range(dataset.labels.classes))


def test_msd_lists_and_folders(tmp_path: Path) -> None:
    root = msd(tmp_path, {"a_0000": (IMAGE, LABEL), "b": (IMAGE, LABEL)}, test=["./imagesTs/t.nii.gz"], licence="CC0")
    save(root / "imagesTr" / "extra.nii.gz", IMAGE)
    save(root / "imagesTr" / "._a.nii.gz", IMAGE)
    dataset = read_dataset(root)
    assert listing(dataset) == {
        "a_0000": (("a_0000.nii.gz",), "a_0000.nii.gz"),
        "b": (("b.nii.gz",), "b.nii.gz"),
    }
    assert (dataset.layout, dataset.name, dataset.licence) == ("msd", "Made", "CC0")
    assert [case.id for case in dataset.unlabelled] == ["t"]
    assert dataset.notes == ("1 scan(s) in imagesTr are not listed in dataset.json and left out, such as extra",)
    write_json(root / "dataset.json", {"modality": {"0": "CT"}, "labels": {"1": "liver"}})
    unlisted = read_dataset(root)
    assert listing(unlisted)["b"] == (("b.nii.gz",), "b.nii.gz")
    assert listing(unlisted)["extra"] == (("extra.nii.gz",), None)


def nnunet(root: Path, ending: str, **fields: object) -> Path:
    for case in ("x1", "x2"):
        for channel in range(2):
            path = root / "imagesTr" / f"{case}_{channel:04}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(noise(SHAPE, channel).T), str(path))
        (root / "labelsTr").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(LABEL.T), str(root / "labelsTr" / f"{case}{ending}"))
    write_json(root / "dataset.json", fields)
    return root


def test_nnunet_version_2_with_ignore_label(tmp_path: Path) -> None:
    names = {"background": 0, "liver": 1, "ignore": 2}
    root = nnunet(tmp_path, ".nrrd", channel_names={"0": "T1", "1": "T2"}, labels=names, file_ending=".nrrd")
    dataset = read_dataset(root)
    assert dataset.layout == "nnunet"
    assert dataset.channels == ("T1", "T2")
    assert listing(dataset)["x1"] == (("x1_0000.nrrd", "x1_0001.nrrd"), "x1.nrrd")
    assert (dataset.labels.values, dataset.labels.names, dataset.labels.ignore) == ((0, 1), ("background", "liver"), 2)
    case = load_case(dataset, dataset.cases[0])
    np.testing.assert_array_equal(case.image, [noise(SHAPE, 0), noise(SHAPE, 1)])
    np.testing.assert_array_equal(case.classes, np.where(LABEL == 2, 255, LABEL))


def test_nnunet_version_1_is_told_from_msd(tmp_path: Path) -> None:
    listed = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ("x1", "x2")]
    fields = {"modality": {"0": "CT", "1": "PET"}, "labels": {"0": "background", "1": "a", "2": "b"}}
    dataset = read_dataset(nnunet(tmp_path, ".nii.gz", training=listed, **fields))
    assert (dataset.layout, dataset.channels, len(dataset.cases)) == ("nnunet", ("CT", "PET"), 2)
    np.testing.assert_array_equal(load_case(dataset, dataset.cases[1]).classes, LABEL)


def test_nnunet_dataset_table_and_missing_channel(tmp_path: Path) -> None:
    table = {"one": {"images": ["imagesTr/x1_0000.mha", "imagesTr/x2_0001.mha"], "label": "labelsTr/x1.mha"}}
    fields = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"a": 1, "b": 2}, "file_ending": ".mha"}
    root = nnunet(tmp_path, ".mha", dataset=table, **fields)
    assert listing(read_dataset(root)) == {"one": (("x1_0000.mha", "x2_0001.mha"), "x1.mha")}
    write_json(root / "dataset.json", fields)
    (root / "imagesTr" / "x2_0001.mha").unlink()
    dataset = read_dataset(root)
    with pytest.raises(DataError, match=r"^case x2: no image file x2_0001\.mha for channel 'T2'.*add the file"):
        load_case(dataset, dataset.cases[1])
    (root / "imagesTr" / "x1_0002.mha").write_bytes((root / "imagesTr" / "x1_0001.mha").read_bytes())
    with pytest.raises(DataError, match=r"^case x1: the image has 3 channels; expected: 2 \(T1, T2\)"):
        load_case(dataset := read_dataset(root), dataset.cases[0])


def test_nnunet_regions_are_refused(tmp_path: Path) -> None:
    fields = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "whole": [1, 2]}, "file_ending": ".nii.gz"}
    with pytest.raises(DataError, match=r"label 'whole' is a region of several values \[1, 2\].*not supported"):
        read_dataset(nnunet(tmp_path, ".nii.gz", **fields))
    with pytest.raises(DataError, match=r"file_ending '\.png'; expected: \.nii\.gz"):
        read_dataset(nnunet(tmp_path, ".nii.gz", **{**fields, "file_ending": ".png"}))


@pytest.mark.parametrize(
    ("style", "values"),
    [
        (("_flair", "_t1", "_t1ce", "_t2", "_seg"), (0, 1, 2, 4)),
        (("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), (0, 1, 2, 3)),
    ],
)
def test_brats_of_both_styles(tmp_path: Path, style: tuple[str, ...], values: tuple[int, ...]) -> None:
    for case in ("BraTS-GLI-00001-000", "B2"):
        for index, part in enumerate(style[:-1]):
            save(tmp_path / "HGG" / case / f"{case}{part}.nii.gz", noise(SHAPE, index))
        save(tmp_path / "HGG" / case / f"{case}{style[-1]}.nii.gz", blob(SHAPE, *values[1:]))
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, dataset.channels) == ("brats", ("FLAIR", "T1", "T1c", "T2"))
    assert dataset.labels.values == values
    assert listing(dataset)["B2"] == (tuple(f"B2{part}.nii.gz" for part in style[:-1]), f"B2{style[-1]}.nii.gz")
    case = load_case(dataset, dataset.cases[0])
    np.testing.assert_array_equal(case.image, [noise(SHAPE, index) for index in range(4)])
    (tmp_path / "HGG" / "B2" / f"B2{style[2]}.nii.gz").unlink()
    with pytest.raises(DataError, match=rf"^case B2: no image file B2{style[2]}\.nii\.gz for channel 'T1c'"):
        load_case(dataset, dataset.cases[0])
    for path in tmp_path.rglob(f"*{style[-1]}.nii.gz"):
        path.unlink()
    validation = read_dataset(tmp_path)
    assert (len(validation.cases), len(validation.unlabelled)) == (0, 2)


def test_promise12_with_test_cases(tmp_path: Path) -> None:
    (tmp_path / "part1").mkdir()
    for case in ("Case00", "Case01"):
        sitk.WriteImage(sitk.GetImageFromArray(IMAGE.T), str(tmp_path / "part1" / f"{case}.mhd"))
    sitk.WriteImage(sitk.GetImageFromArray(blob(SHAPE, 1).T), str(tmp_path / "part1" / "Case00_segmentation.mhd"))
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "promise12"
    assert listing(dataset) == {"Case00": (("Case00.mhd",), "Case00_segmentation.mhd")}
    np.testing.assert_array_equal(load_case(dataset, dataset.cases[0]).classes, blob(SHAPE, 1))
    assert [case.id for case in dataset.unlabelled] == ["Case01"]
    assert load_case(dataset, dataset.unlabelled[0]).classes is None


def test_patterns_pair_by_what_the_stars_stand_for(tmp_path: Path) -> None:
    for patient, visit in (("p1", "a"), ("p1", "b"), ("p2", "a")):
        save(tmp_path / "in [1]" / patient / f"{visit}_img.nii.gz", IMAGE)
        save(tmp_path / "seg" / f"{patient}-{visit}_seg.nii.gz", blob(SHAPE, 3, 7))
    save(tmp_path / "in [1]" / "p1" / "._c_img.nii.gz", IMAGE)
    dataset = read_dataset(tmp_path, images="in [1]/*/*_img.nii.gz", labels="seg/*-*_seg.nii.gz")
    assert listing(dataset) == {
        "p1_a": (("a_img.nii.gz",), "p1-a_seg.nii.gz"),
        "p1_b": (("b_img.nii.gz",), "p1-b_seg.nii.gz"),
        "p2_a": (("a_img.nii.gz",), "p2-a_seg.nii.gz"),
    }
    assert (dataset.labels.values, dataset.labels.names) == ((0, 3, 7), ("background", "label 3", "label 7"))
    assert dataset.channels == ("image",)


def test_patterns_in_one_folder_with_names(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", noise((*SHAPE, 2)))
    save(tmp_path / "a_seg.nii.gz", LABEL)
    write_json(tmp_path / "labels.json", {"1": "Liver", "2": "ignore"})
    dataset = read_dataset(tmp_path, images="*.nii.gz", labels="*_seg.nii.gz")
    assert listing(dataset) == {"a": (("a.nii.gz",), "a_seg.nii.gz")}
    assert dataset.channels == ("channel 0", "channel 1")
    assert (dataset.labels.names, dataset.labels.ignore) == (("background", "Liver"), 2)


def test_patterns_on_real_scans() -> None:
    root = real_data("single_scans")
    spleens = read_dataset(root, images="msd_*/image.nii.gz", labels="msd_*/label.nii.gz")
    assert [case.id for case in spleens.cases] == ["spleen_2_crop", "spleen_8_thickslice"]
    assert spleens.labels.values == (0, 1)
    organs = read_dataset(root, images="*_ct/image.nii.gz", labels="*_ct/label.nii.gz")
    assert (organs.cases[0].id, organs.labels.classes, organs.labels.names[5]) == ("totalsegmentator", 42, "liver")
    assert set(np.unique(load_case(organs, organs.cases[0]).classes)) == set(range(42))
    with pytest.raises(DataError, match=r"value 11 is 'lung_lower_lobe_left' .*'lung_right'.*one meaning a value"):
        read_dataset(root, images="*/image.nii.gz", labels="*/label.nii.gz")


def test_patterns_that_cannot_work(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.nii.gz", IMAGE)
    save(tmp_path / "b" / "x.nii.gz", blob(SHAPE))
    with pytest.raises(UsageError, match="only one of"):
        read_dataset(tmp_path, images="a/*.nii.gz")
    with pytest.raises(UsageError, match="have 1 and 2 wildcards"):
        read_dataset(tmp_path, images="a/*.nii.gz", labels="*/*.nii.gz")
    with pytest.raises(DataError, match=r"no scan matches 'c/\*\.nii\.gz'"):
        read_dataset(tmp_path, images="c/*.nii.gz", labels="b/*.nii.gz")
    with pytest.raises(DataError, match=r"no label file with a value other than 0.*labels\.json"):
        read_dataset(tmp_path, images="a/*.nii.gz", labels="b/*.nii.gz")
    with pytest.raises(UsageError, match="no dataset"):
        read_dataset(None)


def test_patterns_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "x.nii.gz", IMAGE)
    save(tmp_path / "b" / "x.nii.gz", LABEL)
    monkeypatch.chdir(tmp_path)
    for prefix in ("", "./", f"{tmp_path}/"):
        dataset = read_dataset(None, images=f"{prefix}a/*.nii.gz", labels=f"{prefix}b/*.nii.gz")
        assert listing(dataset) == {"x": (("x.nii.gz",), "x.nii.gz")}


def test_two_cases_of_one_id(tmp_path: Path) -> None:
    root = msd(tmp_path, {"a": (IMAGE, LABEL)})
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    msd(root, {"a": (IMAGE, LABEL)}, training=[entry, entry])
    with pytest.raises(DataError, match=r"^case a: two cases of this id: .*a\.nii\.gz.*every case once"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": {}}, "dataset.json has no labels"),
        ({"labels": {"1": "a", "x": "b"}}, "label 'b' has value 'x'; expected: a whole number"),
        ({"labels": {"a": 1, "b": 1}}, "'a' and 'b' have the same value 1"),
        ({"labels": {"0": "background"}}, "no label except background"),
        ({"modality": {"1": "CT"}}, "channels .*numbered from 0"),
        ({"training": [{"label": "x"}]}, "lists .*expected"),
        ({"training": [], "test": [], "labels": {"1": "a"}}, "lists no case"),
    ],
)
def test_faulty_dataset_json(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_dataset(msd(tmp_path, {}, **fields))


def test_dataset_json_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{'name': 1}", encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json is not valid JSON.*line 1"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="holds a list; expected: a JSON object"):
        read_dataset(tmp_path)


def test_folders_in_no_layout() -> None:
    with pytest.raises(
        DataError, match=r"no known dataset layout; it holds HippoCrop, README\.md; expected: MSD or nnU-Net"
    ):
        read_dataset(real_data("dicom_sample"))
    with pytest.raises(DataError, match=r"it holds README\.md, mr, us; .*hint: give .*prostate_mr_trus/mr"):
        read_dataset(real_data("prostate_mr_trus"))
    with pytest.raises(DataError, match="is not a folder"):
        read_dataset(Path("/no/such/folder"))


def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    nobody = os.geteuid() == 0
    if nobody:
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"cannot be read: Permission denied.*rights of the folder"):
            read_dataset(locked)
    finally:
        if nobody:
            os.seteuid(0)
