"""Masks lie on their scans: any orientation, spacing and size; several networks vote; memory is planned."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from farvox.bundle import Inference
from farvox.errors import BundleError, DataError, ResourceError, UsageError
from farvox.geometry import Grid
from farvox.io import read_scan, write_mask
from farvox.prediction import Predictor, parse_memory
from farvox.prediction.files import find_scans, predict_scans
from farvox.prediction.memory import plan_memory, resident_bytes
from tests.geometry.test_steps import ORDERS, oblique
from tests.prediction.networks import Steps, identity_bundle, point_network

VALUES = {200: "a", 500: "b", 600: "c"}


def blocks(shape: tuple[int, int, int]) -> np.ndarray:
    """Class indices 0 to 3 in boxes of different size that touch."""
    classes = np.zeros(shape, np.uint8)
    i, j, k = (np.array(shape) // 2).tolist()
    classes[1:i, 1:j, 1:k], classes[i:-1, 2:j, 1:-2], classes[2:-2, j:-1, k:-1] = 1, 2, 3
    return classes


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_the_same_voxels_are_found_in_each_of_the_48_axis_orders(
    order: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    classes = blocks((15, 11, 19))
    image = nib.Nifti1Image(classes.astype(np.int16), oblique(order, signs))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii.gz")
    spacing = np.zeros(3)
    spacing[list(order)] = (0.7, 1.9, 3.3)
    predictor = Predictor([identity_bundle(VALUES, tuple(spacing))], "cpu")
    (found,) = predict_scans(predictor, find_scans([tmp_path / "scan.nii.gz"], ("MR",)), tmp_path / "out")
    assert found.error is None
    mask = nib.load(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.array([0, *VALUES])[classes])
    scan = nib.load(tmp_path / "scan.nii.gz")
    for field in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[field], scan.header[field])
    for index, (_, name) in enumerate(VALUES.items(), start=1):
        ml = (classes == index).sum() * 0.7 * 1.9 * 3.3 / 1000
        assert found.volumes_ml[name] == pytest.approx(ml, rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.4, 1.1, 1.0), (0.5, 0.6, 0.7)])
def test_resampling_to_network_space_and_back_keeps_all_but_borders(spacing: tuple[float, float, float]) -> None:
    # One structure: between intensities 0 and 3 interpolation would pass through 1 and 2.
    classes = np.kron((blocks((14, 12, 16)) == 1).astype(np.uint8), np.ones((3, 3, 3), np.uint8))
    bundle = identity_bundle({200: "a"}, spacing, (24, 24, 24))
    found = Predictor([bundle], "cpu").segment(classes.astype(np.float32), np.diag([1.0, 1, 1, 1])) == 200
    dice = 2 * (found & (classes == 1)).sum() / (found.sum() + classes.sum())
    assert dice > 0.95
    assert found[4:20, 4:17, 4:23].all()
    assert not found[23:].any()


def test_whole_scans_and_windows_agree_for_a_network_without_context() -> None:
    classes = blocks((20, 18, 22)).astype(np.float32)
    whole = Predictor([identity_bundle(VALUES, (1, 1, 1), None)], "cpu").segment(classes)
    windows = Predictor([identity_bundle(VALUES, (1, 1, 1), (8, 8, 8))], "cpu").segment(classes)
    np.testing.assert_array_equal(whole, windows)


def test_folds_vote_with_their_mean_score_even_on_different_grids() -> None:
    class Says(torch.nn.Module):
        def __init__(self, label: int, strength: float) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(1, 4, 1, 1, 1))
            self.logits.data[0, label] = strength

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(image.shape[0], 4, *image.shape[2:])

    def bundle(label: int, strength: float, spacing: float) -> object:
        return identity_bundle(VALUES, (spacing,) * 3, network=Says(label, strength))

    array = np.random.default_rng(0).uniform(0, 3, (13, 9, 11)).astype(np.float32)
    weak, strong = bundle(1, 1.0, 1.0), bundle(3, 4.0, 1.7)
    assert (Predictor([weak, strong], "cpu").segment(array) == 600).all()
    assert (Predictor([weak], "cpu").segment(array) == 200).all()
    assert (Predictor([weak, bundle(1, 1.2, 2.0), bundle(3, 1.0, 1.0)], "cpu").segment(array) == 200).all()


def test_formats_and_names_are_the_scans(tmp_path: Path) -> None:
    classes = blocks((9, 12, 10))
    source = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(classes.astype(np.int16), oblique((1, 0, 2), (1, -1, 1))), source)
    predictor = Predictor([identity_bundle(VALUES, (1.9, 0.7, 3.3))], "cpu")
    scan = read_scan(source)
    for name in ("a.mha", "b.mhd", "c.nrrd", "d.nii"):
        write_mask(tmp_path / name, classes, scan)
    found = list(
        predict_scans(
            predictor,
            find_scans([tmp_path / n for n in ("a.mha", "b.mhd", "c.nrrd", "d.nii")], ("MR",)),
            tmp_path / "out",
        )
    )
    assert [p.mask.name for p in found if p.mask] == ["a.mha", "b.mhd", "c.nrrd", "d.nii"]
    for prediction in found:
        mask = read_scan(prediction.mask)
        assert scan.grid.difference_to(mask.grid) is None
        np.testing.assert_array_equal(mask.image[0], np.array([0, *VALUES])[classes])


def test_several_files_make_one_scan_and_a_missing_channel_is_named(tmp_path: Path) -> None:
    for name in ("p1_0000", "p1_0001", "p2_t1", "p2_flair", "both"):
        shape = (4, 4, 4, 2) if name == "both" else (4, 4, 4)
        nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = {scan.id: [p.name for p in scan.images] for scan in find_scans([tmp_path], ("FLAIR", "T1"))}
    assert found == {
        "both": ["both.nii.gz"],
        "p1": ["p1_0000.nii.gz", "p1_0001.nii.gz"],
        "p2": ["p2_flair.nii.gz", "p2_t1.nii.gz"],
    }
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1), channels=("FLAIR", "T1"))], "cpu")
    scans = find_scans([tmp_path / "p1_0000.nii.gz", tmp_path / "both.nii.gz"], ("FLAIR", "T1"))
    assert [path.name for path in scans[1].images] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]  # found beside
    (tmp_path / "p1_0001.nii.gz").unlink()
    results = {p.case: p.error for p in predict_scans(predictor, scans, tmp_path / "out")}
    assert "case p1: no image file p1_0001.nii.gz for channel 'T1'" in str(results["p1"])


def test_wrong_scans_are_named_and_the_rest_is_done(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    nib.save(nib.Nifti1Image(blocks((8, 8, 8)).astype(np.int16), np.eye(4)), good)
    bad.write_text("not a scan")
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    results = {p.case: p for p in predict_scans(predictor, find_scans([bad, good], ("MR",)), tmp_path / "out")}
    assert results["good"].mask
    assert str(results["bad"].error).startswith("case bad: ")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_a_mask_never_replaces_its_scan(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(blocks((8, 8, 8)).astype(np.int16), np.eye(4)), scan)
    before = scan.read_bytes()
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    (result,) = predict_scans(predictor, find_scans([scan], ("MR",)), tmp_path)
    assert "would replace its scan" in str(result.error)
    assert scan.read_bytes() == before


def test_two_scans_of_one_name_and_paths_that_are_none(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)), tmp_path / folder / "scan.nii.gz")
    with pytest.raises(DataError, match="same mask"):
        find_scans([tmp_path / "a", tmp_path / "b"], ("MR",))
    (tmp_path / "empty").mkdir()
    for path, word in ((tmp_path / "no.nii.gz", "no file"), (tmp_path / "empty", "no scan in folder")):
        with pytest.raises(DataError, match=word):
            find_scans([path], ("MR",))


def test_arrays_are_checked_like_files() -> None:
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    with pytest.raises(DataError, match="2 dimensions"):
        predictor.segment(np.zeros((4, 4)))
    with pytest.raises(DataError, match="NaN"):
        predictor.segment(np.full((4, 4, 4), np.nan))
    with pytest.raises(DataError, match="2 channel"):
        predictor.segment(np.zeros((2, 4, 4, 4)))
    with pytest.raises(BundleError, match="different labels"):
        Predictor([identity_bundle(VALUES, (1, 1, 1)), identity_bundle({1: "x"}, (1, 1, 1))], "cpu")


def test_memory_texts() -> None:
    assert parse_memory("2G") == 2 * 2**30
    assert parse_memory("1.5GB") == int(1.5 * 2**30)
    assert parse_memory("800m") == 800 * 2**20
    for text in ("2", "", "0G", "-1G", "two"):
        with pytest.raises(UsageError, match="800M or 2G"):
            parse_memory(text)


def test_a_tight_limit_shrinks_windows_and_an_impossible_one_is_refused() -> None:
    network, scan = Steps(9), (512, 512, 400)

    def plan(limit: int) -> tuple[tuple[int, int, int], int]:
        made = plan_memory(resident_bytes() + limit, network, 1, 9, 1, (128, 128, 128), scan, scan)
        return made.window, made.slab

    roomy, tight = plan(16 * 2**30), plan(2000 * 2**20)
    assert roomy[0] == (128, 128, 128)
    assert tight[0][2] < 128
    assert tight[1] <= roomy[1]
    with pytest.raises(ResourceError, match=r"9 classes does not fit.*raise --max-memory"):
        plan(400 * 2**20)


def test_grid_of_a_bare_array_is_the_networks() -> None:
    predictor = Predictor([identity_bundle(VALUES, (1.5, 1.5, 2.0))], "cpu")
    array = blocks((9, 9, 9)).astype(np.float32)
    with_affine = predictor.segment(array, Grid((9, 9, 9), np.diag([1.5, 1.5, 2.0, 1])).affine)
    np.testing.assert_array_equal(predictor.segment(array), with_affine)


def test_a_network_of_whole_scans_is_not_cut(tmp_path: Path) -> None:
    scan = (256, 256, 256)
    with pytest.raises(ResourceError, match="as a whole, as this network must"):
        plan_memory(resident_bytes() + 500 * 2**20, Steps(9), 1, 9, 1, scan, scan, scan, fixed=True)


def test_windows_that_a_network_reaches_relative_to_stay_as_in_training() -> None:
    bundle = identity_bundle(VALUES, (1, 1, 1), window=(96, 96, 96))
    relative = replace(bundle, network=copy.copy(bundle.network))
    relative.network.size_dependent = True
    scan = np.zeros((96, 96, 128), np.float32)
    spare = 175 * 2**20
    assert not Predictor([bundle], "cpu").segment(scan, max_memory=resident_bytes() + spare).any()
    with pytest.raises(ResourceError, match="in windows of 96×96×96, as this network must, does not fit"):
        Predictor([relative], "cpu").segment(scan, max_memory=resident_bytes() + spare)


def test_a_point_network_needs_no_room_for_the_features_of_a_whole_scan() -> None:
    space = (200, 170, 140)
    network = point_network(8, stride=1, offsets=64)
    limit = resident_bytes() + 1600 * 2**20
    assert plan_memory(limit, network, 1, 8, 1, space, space, space, fixed=True, piecewise=True).window == space
    with pytest.raises(ResourceError, match="as a whole"):
        plan_memory(limit, network, 1, 8, 1, space, space, space, fixed=True)


def test_scans_with_nan_are_refused_however_they_come(tmp_path: Path) -> None:
    array = np.ones((6, 6, 6), np.float32)
    array[2, 2, 2] = np.inf
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "odd.nii.gz")
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    with pytest.raises(DataError, match=r"case odd\.nii\.gz: NaN or infinite"):
        predictor.segment(tmp_path / "odd.nii.gz")


def test_a_network_learned_on_z_scored_patches_is_given_z_scored_windows() -> None:
    bundle = identity_bundle({1: "bright"}, (1, 1, 1), window=(8, 8, 8))
    inference = Inference(patch_size=(8, 8, 8), patch_normalization=True, blend="mean")
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"inference": inference}))
    scan = np.zeros((1, 8, 8, 16), np.float32)
    scan[..., :4], scan[..., 8:12] = 0.2, 0.02  # ten times fainter in the second half, and in windows of its own
    scan[..., 4:8], scan[..., 12:] = 0.0, 0.0
    plain = Predictor([identity_bundle({1: "bright"}, (1, 1, 1), window=(8, 8, 8))], "cpu", overlap=0.0)
    assert not plain.segment(scan).any()
    found = Predictor([bundle], "cpu", overlap=0.0).segment(scan)
    np.testing.assert_array_equal(found, scan[0] > 0)
