"""Masks are on the grids of their scans: any orientation, spacing and size; several networks; planned memory."""

from __future__ import annotations

import contextlib
import copy
import gc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from farvox import create_model
from farvox.bundle import Inference, ModelEntry, save_bundle
from farvox.errors import BundleError, DataError, ModelError, ResourceError, UsageError
from farvox.geometry import Grid
from farvox.io import read_scan, write_mask
from farvox.prediction import Predictor, parse_memory
from farvox.prediction.files import find_scans
from farvox.prediction.memory import MemoryRequest, plan_memory, resident_bytes
from farvox.prediction.sliding_window import sliding_window_inference
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
def test_the_same_voxels_are_labelled_in_each_of_the_48_axis_orders(
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
    (predicted,) = predictor.segment_files(find_scans([tmp_path / "scan.nii.gz"], ("MR",)), tmp_path / "out")
    assert predicted.error is None
    mask = nib.load(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.array([0, *VALUES])[classes])
    scan = nib.load(tmp_path / "scan.nii.gz")
    for field in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[field], scan.header[field])
    for index, (_, name) in enumerate(VALUES.items(), start=1):
        ml = (classes == index).sum() * 0.7 * 1.9 * 3.3 / 1000
        assert predicted.volumes_ml[name] == pytest.approx(ml, rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.4, 1.1, 1.0), (0.5, 0.6, 0.7)])
def test_resampling_to_network_space_and_back_keeps_all_but_borders(spacing: tuple[float, float, float]) -> None:
    # One structure: between intensities 0 and 3 interpolation would pass through 1 and 2.
    classes = np.kron((blocks((14, 12, 16)) == 1).astype(np.uint8), np.ones((3, 3, 3), np.uint8))
    bundle = identity_bundle({200: "a"}, spacing, (24, 24, 24))
    predicted = Predictor([bundle], "cpu").segment(classes.astype(np.float32), np.diag([1.0, 1, 1, 1])) == 200
    dice = 2 * (predicted & (classes == 1)).sum() / (predicted.sum() + classes.sum())
    assert dice > 0.95
    assert predicted[4:20, 4:17, 4:23].all()
    assert not predicted[23:].any()


def test_whole_scans_and_windows_agree_for_a_network_without_context() -> None:
    classes = blocks((20, 18, 22)).astype(np.float32)
    whole = Predictor([identity_bundle(VALUES, (1, 1, 1), None)], "cpu").segment(classes, np.eye(4))
    windows = Predictor([identity_bundle(VALUES, (1, 1, 1), (8, 8, 8))], "cpu").segment(classes, np.eye(4))
    np.testing.assert_array_equal(whole, windows)


def test_folds_are_averaged_even_on_different_grids() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, label: int, strength: float) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(1, 4, 1, 1, 1))
            self.logits.data[0, label] = strength

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(image.shape[0], 4, *image.shape[2:])

    def bundle(label: int, strength: float, spacing: float) -> object:
        return identity_bundle(VALUES, (spacing,) * 3, network=Constant(label, strength))

    array = np.random.default_rng(0).uniform(0, 3, (13, 9, 11)).astype(np.float32)
    weak, strong = bundle(1, 1.0, 1.0), bundle(3, 4.0, 1.7)
    assert (Predictor([weak, strong], "cpu").segment(array, np.eye(4)) == 600).all()
    assert (Predictor([weak], "cpu").segment(array, np.eye(4)) == 200).all()
    assert (Predictor([weak, bundle(1, 1.2, 2.0), bundle(3, 1.0, 1.0)], "cpu").segment(array, np.eye(4)) == 200).all()


def test_masks_have_the_formats_and_names_of_the_scans(tmp_path: Path) -> None:
    classes = blocks((9, 12, 10))
    source = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(classes.astype(np.int16), oblique((1, 0, 2), (1, -1, 1))), source)
    predictor = Predictor([identity_bundle(VALUES, (1.9, 0.7, 3.3))], "cpu")
    scan = read_scan(source)
    for name in ("a.mha", "b.mhd", "c.nrrd", "d.nii"):
        write_mask(tmp_path / name, classes, scan)
    predicted = list(
        predictor.segment_files(
            find_scans([tmp_path / n for n in ("a.mha", "b.mhd", "c.nrrd", "d.nii")], ("MR",)),
            tmp_path / "out",
        )
    )
    assert [p.mask.name for p in predicted if p.mask] == ["a.mha", "b.mhd", "c.nrrd", "d.nii"]
    for prediction in predicted:
        mask = read_scan(prediction.mask)
        assert scan.grid.difference_to(mask.grid) is None
        np.testing.assert_array_equal(mask.image[0], np.array([0, *VALUES])[classes])


def test_several_files_make_one_scan_and_a_missing_channel_is_named(tmp_path: Path) -> None:
    for name in ("p1_0000", "p1_0001", "p2_t1", "p2_flair", "both"):
        shape = (4, 4, 4, 2) if name == "both" else (4, 4, 4)
        nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
    predicted = {scan.id: [p.name for p in scan.images] for scan in find_scans([tmp_path], ("FLAIR", "T1"))}
    assert predicted == {
        "both": ["both.nii.gz"],
        "p1": ["p1_0000.nii.gz", "p1_0001.nii.gz"],
        "p2": ["p2_flair.nii.gz", "p2_t1.nii.gz"],
    }
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1), channels=("FLAIR", "T1"))], "cpu")
    scans = find_scans([tmp_path / "p1_0000.nii.gz", tmp_path / "both.nii.gz"], ("FLAIR", "T1"))
    assert [path.name for path in scans[1].images] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]  # found next to it
    (tmp_path / "p1_0001.nii.gz").unlink()
    results = {p.case: p.error for p in predictor.segment_files(scans, tmp_path / "out")}
    assert "case p1: no image file p1_0001.nii.gz for channel 'T1'" in str(results["p1"])


def test_an_error_of_one_scan_does_not_stop_the_rest(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    nib.save(nib.Nifti1Image(blocks((8, 8, 8)).astype(np.int16), np.eye(4)), good)
    bad.write_text("not a scan", encoding="utf-8")
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    results = {p.case: p for p in predictor.segment_files(find_scans([bad, good], ("MR",)), tmp_path / "out")}
    assert results["good"].mask
    assert str(results["bad"].error).startswith("case bad: ")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_a_mask_never_replaces_its_scan(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(blocks((8, 8, 8)).astype(np.int16), np.eye(4)), scan)
    before = scan.read_bytes()
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    (result,) = predictor.segment_files(find_scans([scan], ("MR",)), tmp_path)
    assert "would replace its scan" in str(result.error)
    assert scan.read_bytes() == before


def test_two_scans_of_one_name_and_paths_without_scans(tmp_path: Path) -> None:
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
        predictor.segment(np.zeros((4, 4)), np.eye(4))
    with pytest.raises(DataError, match="NaN"):
        predictor.segment(np.full((4, 4, 4), np.nan), np.eye(4))
    with pytest.raises(DataError, match="the image has 2 channels; expected: 1"):
        predictor.segment(np.zeros((2, 4, 4, 4)), np.eye(4))
    with pytest.raises(BundleError, match="different labels"):
        Predictor([identity_bundle(VALUES, (1, 1, 1)), identity_bundle({1: "x"}, (1, 1, 1))], "cpu")


def test_memory_texts() -> None:
    assert parse_memory("2G") == 2 * 2**30
    assert parse_memory("1.5GB") == int(1.5 * 2**30)
    assert parse_memory("800m") == 800 * 2**20
    assert parse_memory(2e9) == parse_memory(np.int64(2_000_000_000)) == 2_000_000_000  # type: ignore[arg-type]
    for text in ("2", "", "0G", "-1G", "two"):
        with pytest.raises(UsageError, match="800M or 2G"):
            parse_memory(text)


def test_a_tight_limit_shrinks_windows_and_an_impossible_one_is_refused() -> None:
    network, scan = Steps(9), (512, 512, 400)

    def plan(limit: int) -> tuple[tuple[int, int, int], int]:
        made = plan_memory(MemoryRequest(resident_bytes() + limit, 1, 9, 1, scan, scan), network, (128, 128, 128))
        return made.window, made.slab

    roomy, tight = plan(16 * 2**30), plan(2000 * 2**20)
    assert roomy[0] == (128, 128, 128)
    assert tight[0][2] < 128
    assert tight[1] <= roomy[1]
    with pytest.raises(ResourceError, match=r"9 classes does not fit.*raise --max-memory"):
        plan(400 * 2**20)


def test_an_array_needs_a_valid_affine_and_nothing_else_takes_one(tmp_path: Path) -> None:
    predictor = Predictor([identity_bundle(VALUES, (1.5, 1.5, 2.0))], "cpu")
    array = blocks((9, 9, 9)).astype(np.float32)
    for image in (array, torch.from_numpy(array)):
        with pytest.raises(DataError, match="array without affine; hint: give the 4×4 affine"):
            predictor.segment(image)
    for affine, word in ((np.eye(3), "shape 3×3"), (np.diag([1.0, 0, 1, 1]), "singular")):
        with pytest.raises(DataError, match=word):
            predictor.segment(array, affine)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "scan.nii.gz")
    for scan in (tmp_path / "scan.nii.gz", [tmp_path / "scan.nii.gz"], read_scan(tmp_path / "scan.nii.gz")):
        with pytest.raises(UsageError, match="an affine for a scan that has one"):
            predictor.segment(scan, np.eye(4))
    for image in (nib.Nifti1Image(array, np.eye(4)), sitk.GetImageFromArray(array)):
        with pytest.raises(UsageError, match="an affine for a scan that has one"):
            predictor.segment(image, np.eye(4))


def test_other_objects_than_scans_are_refused_in_one_line() -> None:
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    array = blocks((9, 9, 9)).astype(np.float32)
    for kind in (complex, object, str):
        with pytest.raises(DataError, match="expected: real numbers"):
            predictor.segment(array.astype(kind), np.eye(4))
    with pytest.raises(UsageError, match="a list that is not of paths"):
        predictor.segment((array, np.eye(4)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the image has 0 channels"):
        predictor.segment([])
    half = torch.from_numpy(array).bfloat16()
    np.testing.assert_array_equal(predictor.segment(half, np.eye(4)), predictor.segment(array, np.eye(4)))


def test_the_manifest_decides_how_windows_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = identity_bundle(VALUES, (1, 1, 1))
    inference = Inference(patch_size=(6, 6, 6), overlap=0.25, blend="mean", precision="bfloat16")
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"inference": inference}))
    used: list[object] = []

    def spy(predict, slab, shape, window, overlap, batch, blend):  # type: ignore[no-untyped-def]
        used.extend((window, overlap, blend))
        return sliding_window_inference(predict, slab, shape, window, overlap, batch, blend)

    def context(precision, device):  # type: ignore[no-untyped-def]
        used.append(precision)
        return contextlib.nullcontext()

    monkeypatch.setattr("farvox.prediction.predictor.sliding_window_inference", spy)
    monkeypatch.setattr("farvox.prediction.predictor.autocast_context", context)
    array = blocks((9, 9, 9)).astype(np.float32)
    Predictor([bundle], "cpu").segment(array, np.eye(4))
    assert used[:3] == [(6, 6, 6), 0.25, "mean"]
    assert set(used[3:]) == {"bfloat16"}
    used.clear()
    Predictor([bundle], "cpu", overlap=0.75).segment(array, np.eye(4))
    assert used[1] == 0.75


@pytest.mark.parametrize("channels", [("MR",), ("FLAIR", "T1")])
def test_each_kind_of_input_gives_the_same_mask(tmp_path: Path, channels: tuple[str, ...]) -> None:
    affine = oblique((1, 0, 2), (1, -1, 1))
    array = np.stack([blocks((9, 12, 10)).astype(np.float32) + n for n in range(len(channels))])
    predictor = Predictor([identity_bundle(VALUES, (1.9, 0.7, 3.3), channels=channels)], "cpu")
    image = nib.Nifti1Image(np.moveaxis(array, 0, -1), affine)
    nib.save(image, tmp_path / "scan.nii.gz")
    paths = [tmp_path / f"channel{n}.nii.gz" for n in range(len(channels))]
    for path, channel in zip(paths, array, strict=True):
        nib.save(nib.Nifti1Image(channel, affine), path)
    scan = read_scan(tmp_path / "scan.nii.gz")
    expected = np.array([0, *VALUES])[blocks((9, 12, 10))]
    inputs = {
        "path": tmp_path / "scan.nii.gz",
        "text": str(tmp_path / "scan.nii.gz"),
        "list": paths,
        "Scan": scan,
        "nibabel": image,
        "prepared": predictor.prepare(scan),
    }
    if len(channels) == 1:
        inputs["SimpleITK"] = sitk.ReadImage(str(paths[0]))
    for kind, one in inputs.items():
        np.testing.assert_array_equal(predictor.segment(one), expected, kind)
    for stored in (array, array.astype(np.float64), torch.from_numpy(array)):
        np.testing.assert_array_equal(predictor.segment(stored, affine), expected)
    out = predictor.segment_to_file(inputs["list"], str(tmp_path / "mask.nrrd"))
    mask = read_scan(out)
    np.testing.assert_array_equal(mask.image[0], expected)
    assert scan.grid.difference_to(mask.grid) is None
    with pytest.raises(DataError, match="would replace its scan"):
        predictor.segment_to_file(paths, paths[0])


def test_probabilities_are_on_the_scans_grid_and_their_maximum_is_the_mask() -> None:
    affine = oblique((2, 0, 1), (-1, 1, 1))
    array = np.random.default_rng(0).uniform(0, 3, (9, 12, 10)).astype(np.float32)
    predictor = Predictor([identity_bundle(VALUES, (1.0, 1.2, 2.1)), identity_bundle(VALUES, (1.5, 1.5, 1.5))], "cpu")
    probabilities = predictor.predict_probabilities(array, affine)
    assert probabilities.shape == (4, 9, 12, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    mask = predictor.segment(array, affine)
    np.testing.assert_array_equal(np.array([0, *VALUES])[probabilities.argmax(0)], mask)
    # On coarser network grids both interpolate linearly between the centres of the network's voxels.
    coarse = Predictor([identity_bundle(VALUES, (3.4, 3.6, 3.5)), identity_bundle(VALUES, (3.8, 3.5, 3.5))], "cpu")
    at_centres = coarse.predict_points(array, Grid(array.shape, affine).centres(), affine).probabilities
    np.testing.assert_allclose(coarse.predict_probabilities(array, affine).reshape(4, -1).T, at_centres, atol=1e-5)


def test_progress_ends_at_one_and_memory_is_given_as_text() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.updates: list[tuple[str, float]] = []

        def update(self, task: str, fraction: float, **info: object) -> None:
            self.updates.append((task, fraction))

        def message(self, text: str) -> None: ...

    recorder = Recorder()
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    predictor.segment(blocks((9, 9, 9)).astype(np.float32), np.eye(4), max_memory="8G", progress=recorder)
    assert recorder.updates[-1] == ("segment array", 1.0)
    with pytest.raises(UsageError, match="800M or 2G"):
        predictor.segment(blocks((9, 9, 9)), np.eye(4), max_memory="much")
    with pytest.raises(UsageError, match="0 to below 1"):
        Predictor(predictor.bundles, "cpu", overlap=1.0)


def test_a_run_and_lists_are_loaded_with_all_their_bundles(tmp_path: Path) -> None:
    made = identity_bundle({200: "a", 600: "b"}, (1, 1, 2))
    entry = ModelEntry(name="unet3d", in_channels=1, classes=3, options={"widths": [4, 8]})
    folders = [tmp_path / "run" / f"fold-{n}" / "bundle" for n in (0, 2, 10)]
    for number, folder in enumerate(folders):
        torch.manual_seed(number)
        manifest = made.manifest.model_copy(update={"model": entry, "fold": folder.parent.name})
        save_bundle(folder, create_model("unet3d", classes=3, widths=[4, 8]), manifest, made.recipe)
    run = Predictor.load(tmp_path / "run", device="cpu")
    assert [bundle.manifest.fold for bundle in run.bundles] == ["fold-0", "fold-2", "fold-10"]
    assert repr(run) == "Predictor: 3 bundles (unet3d), 1 channel (MR), 2 labels (a, b), cpu"
    assert [b.path for b in Predictor.load(tmp_path / "run" / "fold-2", device="cpu").bundles] == [folders[1]]
    image = np.random.default_rng(0).normal(size=(8, 8, 8))
    expected = run.predict_probabilities(image, np.eye(4))
    for paths in ((folders,), folders, (str(folders[0]), folders[1:])):
        loaded = Predictor.load(*paths, device="cpu")
        np.testing.assert_array_equal(loaded.predict_probabilities(image, np.eye(4)), expected)
    with pytest.raises(BundleError, match="no bundle given"):
        Predictor.load([])


def test_former_names_work_with_a_warning() -> None:
    array, bundle = blocks((9, 9, 9)).astype(np.float32), identity_bundle(VALUES, (1, 1, 1))
    with pytest.warns(DeprecationWarning, match="point_stride"):
        predictor = Predictor([bundle], "cpu", sampling="network")
    assert predictor.point_stride == "native"
    with pytest.warns(DeprecationWarning, match=r"Predictor\.prepare"):
        prepared = predictor.open(array, np.eye(4))
    with pytest.warns(DeprecationWarning, match="predict_points"):
        former = predictor.at(prepared, [[1, 1, 1]])
    np.testing.assert_array_equal(former.labels, predictor.predict_points(prepared, [[1, 1, 1]]).labels)


def test_the_warning_about_a_former_name_is_shown_at_the_callers_line(tmp_path: Path) -> None:
    network = create_model("unet3d", 1, 4, widths=[4, 8])
    bundle = identity_bundle(VALUES, (1, 1, 1))
    model = ModelEntry(name="unet3d", in_channels=1, classes=4, options={"widths": [4, 8]})
    save_bundle(tmp_path / "b", network, bundle.manifest.model_copy(update={"model": model}), bundle.recipe)
    with pytest.warns(DeprecationWarning, match="point_stride") as caught:
        Predictor.load(tmp_path / "b", device="cpu", sampling="network")
    assert [Path(warning.filename).name for warning in caught] == ["test_predictor.py"]


def test_a_network_with_an_output_of_another_shape_is_named() -> None:
    class Halves(torch.nn.Conv3d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image)[..., ::2]

    for network, word in (
        (Halves(1, 4, 1), r"Halves returns \(1, 4, 16, 16, 8\)"),
        (torch.nn.Conv3d(1, 3, 1), "Conv3d"),
    ):
        predictor = Predictor([identity_bundle(VALUES, (1, 1, 1), network=network)], "cpu")
        with pytest.raises(ModelError, match=word + r".*expected: logits \(1, 4, 16, 16, 16\)"):
            predictor.segment(blocks((16, 16, 16)), np.eye(4))


def test_a_network_of_whole_scans_is_not_cut(tmp_path: Path) -> None:
    scan = (256, 256, 256)
    with pytest.raises(ResourceError, match="as a whole, as this network requires"):
        plan_memory(
            MemoryRequest(resident_bytes() + 500 * 2**20, 1, 9, 1, scan, scan), Steps(9), scan, fixed_window=True
        )


def test_windows_of_size_dependent_networks_stay_as_in_training() -> None:
    bundle = identity_bundle(VALUES, (1, 1, 1), window=(96, 96, 96))
    relative = replace(bundle, network=copy.copy(bundle.network))
    relative.network.size_dependent = True
    scan = np.zeros((96, 96, 128), np.float32)
    scan[0, 0, 0] = 0.1
    spare = 175 * 2**20
    predictors = Predictor([bundle], "cpu"), Predictor([relative], "cpu")
    gc.collect()  # what earlier tests left must not be freed between the count and the plan
    assert not predictors[0].segment(scan, np.eye(4), max_memory=resident_bytes() + spare).any()
    gc.collect()
    with pytest.raises(ResourceError, match="in windows of 96×96×96, as this network requires, does not fit"):
        predictors[1].segment(scan, np.eye(4), max_memory=resident_bytes() + spare)


def test_a_point_network_needs_no_memory_for_the_features_of_a_whole_scan() -> None:
    space = (200, 170, 140)
    network = point_network(8, stride=1, offsets=64)
    request = MemoryRequest(resident_bytes() + 1600 * 2**20, 1, 8, 1, space, space)
    assert plan_memory(request, network, space, fixed_window=True, chunked=True).window == space
    with pytest.raises(ResourceError, match="as a whole"):
        plan_memory(request, network, space, fixed_window=True)


def test_scans_with_infinite_values_are_refused(tmp_path: Path) -> None:
    array = np.ones((6, 6, 6), np.float32)
    array[2, 2, 2] = np.inf
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "odd.nii.gz")
    predictor = Predictor([identity_bundle(VALUES, (1, 1, 1))], "cpu")
    with pytest.raises(DataError, match=r"case odd: the image contains NaN or infinite"):
        predictor.segment(tmp_path / "odd.nii.gz")


def test_a_network_trained_on_normalised_patches_receives_normalised_windows() -> None:
    bundle = identity_bundle({1: "bright"}, (1, 1, 1), window=(8, 8, 8))
    inference = Inference(patch_size=(8, 8, 8), patch_normalization=True, blend="mean")
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"inference": inference}))
    scan = np.zeros((1, 8, 8, 16), np.float32)
    scan[..., :4], scan[..., 8:12] = 0.2, 0.02  # ten times fainter in the second half, and in windows of its own
    scan[..., 4:8], scan[..., 12:] = 0.0, 0.0
    plain = Predictor([identity_bundle({1: "bright"}, (1, 1, 1), window=(8, 8, 8))], "cpu", overlap=0.0)
    assert not plain.segment(scan, np.eye(4)).any()
    predicted = Predictor([bundle], "cpu", overlap=0.0).segment(scan, np.eye(4))
    np.testing.assert_array_equal(predicted, scan[0] > 0)
