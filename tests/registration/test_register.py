"""Known displacements are recovered, for any grids, axes and dimensions of the scans; the use of a registration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from farvox import create_model
from farvox.bundle import save_bundle
from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.prediction import Predictor
from farvox.recipes import load_recipe
from farvox.registration import RegisterOptions, Registration, RegistrationMetrics, register
from farvox.registration.features import ScanFeatures, feature_groups, normalise_features
from tests.registration.made import anatomy, grid_about_origin, intensity_bundle, rotated_axes, scan_on, wave

PENULTIMATE: dict[str, Any] = {"features": "penultimate", "smoothness": 2.0}
GRID = grid_about_origin((30, 28, 26), (2.0, 2.0, 2.0))
INNER = (slice(5, -5),) * 3


def predictor(*arguments: Any, **options: Any) -> Predictor:
    return Predictor([intensity_bundle(*arguments, **options)], "cpu")


def positions(grid: Grid) -> np.ndarray:
    """(N, 3) mm of all voxels."""
    return grid.voxel_to_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3))


def error_mm(field: np.ndarray, grid: Grid, displace: np.ndarray) -> float:
    """Mean length of the difference to the known displacement (N, 3), away from the faces."""
    expected = displace.T.reshape(3, *grid.shape)
    return float(np.sqrt(((field - expected) ** 2).sum(0))[INNER].mean())


def test_equal_scans_get_a_displacement_of_zero() -> None:
    found = register(scan_on(GRID), scan_on(GRID), predictor(), **PENULTIMATE)
    assert (found.field == 0).all()
    np.testing.assert_allclose(found.warp_image(), scan_on(GRID).image[0], atol=1e-4)


@pytest.fixture(scope="module")
def waved() -> Registration:
    """A scan registered with itself after a wave, with the whole scan as the network's input."""
    return register(scan_on(GRID, wave), scan_on(GRID), predictor(), **PENULTIMATE)


@pytest.mark.parametrize("window", [None, (16, 16, 16)])
def test_a_known_smooth_displacement_is_recovered(waved: Registration, window: tuple[int, int, int] | None) -> None:
    fixed, moving = scan_on(GRID, wave), scan_on(GRID)
    found = register(fixed, moving, predictor(window=window), **PENULTIMATE) if window else waved
    unregistered, truth = error_mm(0 * found.field, GRID, wave(positions(GRID))), wave(positions(GRID))
    assert unregistered > 2.5
    assert error_mm(found.field, GRID, truth) < 0.5  # a quarter of a voxel
    before = np.abs(moving.image - fixed.image)[0][INNER].mean()
    after = np.abs(found.warp_image() - fixed.image[0])[INNER].mean()
    assert after < 0.15 * before
    assert all(level.after < level.before for level in found.metrics.feature_distance)


def test_spacing_orientation_and_obliqueness_may_differ() -> None:
    # The moving scan: axes left, inferior, posterior, thinner voxels, rotated by 12 degrees.
    axes = rotated_axes(12) @ np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
    moving_grid = grid_about_origin((44, 40, 34), (1.6, 1.5, 2.0), axes)
    fixed, moving = scan_on(GRID, wave), scan_on(moving_grid)
    found = register(fixed, moving, predictor(), **PENULTIMATE)
    assert error_mm(found.field, GRID, wave(positions(GRID))) < 0.6


def test_the_field_has_the_axis_order_of_the_fixed_scan() -> None:
    turn = np.array([[0.0, 0, 1], [-1, 0, 0], [0, 1, 0]])  # axes posterior, superior, right
    grid = grid_about_origin((28, 26, 30), (2.0, 2.0, 2.0), turn)
    fixed = scan_on(grid, wave)
    found = register(fixed, scan_on(GRID), predictor(), **PENULTIMATE)
    assert found.field.shape == (3, 28, 26, 30)
    assert error_mm(found.field, grid, wave(positions(grid))) < 0.5


def test_single_slices_move_within_their_plane() -> None:
    grid = grid_about_origin((40, 36, 1), (1.5, 1.5, 4.0), rotated_axes(20))
    plane = grid.affine[:3, :2] / grid.spacing[:2]

    def within(points: np.ndarray) -> np.ndarray:
        return wave(points) @ plane @ plane.T

    found = register(scan_on(grid, within), scan_on(grid), predictor(1.5), **PENULTIMATE)
    across = grid.affine[:3, 2] / grid.spacing[2]
    assert np.abs(np.tensordot(across, found.field, 1)).max() < 1e-5
    expected = within(positions(grid)).T.reshape(3, *grid.shape)
    away = np.sqrt(((found.field - expected) ** 2).sum(0))[6:-6, 6:-6]
    assert np.sqrt((expected**2).sum(0))[6:-6, 6:-6].mean() > 2
    assert away.mean() < 0.6


def test_centers_and_search_register_a_distant_scan() -> None:
    far = grid_about_origin((30, 28, 26), (2.0, 2.0, 2.0)).affine.copy()
    far[:3, 3] += (400, -300, 250)
    moving = Scan(scan_on(GRID).image, Grid(GRID.shape, far), Path("moving.nii.gz"))
    with pytest.raises(DataError, match="do not overlap: the distance between their centres is 559 mm") as error:
        register(scan_on(GRID), moving, predictor(), **PENULTIMATE)
    assert "--init centers" in str(error.value)
    found = register(scan_on(GRID), moving, predictor(), features="penultimate", init="centers")
    np.testing.assert_allclose(found.initial_mm, (400, -300, 250), atol=1e-9)
    assert np.abs(found.field - found.initial_mm[:, None, None, None]).max() < 0.02

    shifted = scan_on(GRID, lambda x: x * 0 + (11.0, -9.0, 7.0))
    found = register(shifted, moving, predictor(), init="search", **PENULTIMATE)
    assert np.abs(found.initial_mm - (411, -309, 257)).max() < 3
    expected = np.broadcast_to(np.array([411.0, -309, 257]), positions(GRID).shape)
    assert error_mm(found.field, GRID, expected) < 0.6


def test_labels_follow_the_field(waved: Registration) -> None:
    def structures(points: np.ndarray) -> np.ndarray:
        return np.where(anatomy(points) > 1, 7, np.where(anatomy(points) < -1, 300, 0)).astype(np.uint16)

    truth = structures(positions(GRID) + wave(positions(GRID))).reshape(GRID.shape)
    labels_of_moving = structures(positions(GRID)).reshape(GRID.shape)
    for labels, low, high in ((waved.warp_labels(labels_of_moving), 0.88, 1), (labels_of_moving, 0, 0.8)):
        for value in (7, 300):
            dice = 2 * ((labels == value) & (truth == value)).sum() / ((labels == value).sum() + (truth == value).sum())
            assert low < dice < high
    assert waved.warp_labels(labels_of_moving).dtype == np.uint16


def test_voxels_from_outside_are_filled() -> None:
    ones = Scan(scan_on(GRID).image + 5, GRID, Path("ones"))
    found = register(ones, ones, predictor(), iterations=0)
    moved = replace(found, field=found.field + np.float32(2.0 * 10))
    image = moved.warp_image(ones)
    assert (image[-9:] == ones.image.min()).all()
    np.testing.assert_allclose(image[:-10, :-10, :-10], ones.image[0, 10:, 10:, 10:], atol=1e-4)
    assert moved.warp_labels(np.ones(GRID.shape, np.uint8)).sum() == 20 * 18 * 16
    with pytest.raises(DataError, match=r"an array of shape \(4, 5, 6\) without affine"):
        moved.warp_labels(np.ones((4, 5, 6), np.uint8))


def test_options_out_of_range() -> None:
    for wrong, word in (
        ({"features": "deep"}, "penultimate, probabilities, both"),
        ({"init": "here"}, "header, centers, search"),
        ({"iterations": -1}, "0 or more"),
        ({"smoothness": float("nan")}, "0 or more"),
    ):
        with pytest.raises(UsageError, match=word):
            RegisterOptions(**wrong)  # type: ignore[arg-type]


def test_scans_that_cannot_be_registered() -> None:
    flat = scan_on(grid_about_origin((30, 28, 1), (2, 2, 2)), name="flat.nii.gz")
    with pytest.raises(DataError, match=r"flat\.nii\.gz is a single slice and scan\.nii\.gz a volume of 30×28×26"):
        register(scan_on(GRID), flat, predictor())
    with pytest.raises(DataError, match=r"the image has 1 channel; expected: 2 \(T1, T2\)"):
        register(scan_on(GRID), scan_on(GRID), predictor(channels=("T1", "T2")))
    for value, word in ((np.nan, "NaN"), (3.0, "constant")):
        bad = Scan(np.full((1, *GRID.shape), value, np.float32), GRID, Path("bad.nii.gz"))
        with pytest.raises(DataError, match=word):
            register(scan_on(GRID), bad, predictor())


def test_points_are_mapped_by_the_field_and_back(waved: Registration) -> None:
    points = np.random.default_rng(1).uniform(-20, 20, (50, 3))
    moved = waved.warp_points(points)
    lps = np.array([-1.0, -1.0, 1.0])
    transform = waved.to_sitk()
    expected = [np.array(transform.TransformPoint((point * lps).tolist())) * lps for point in points]
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    assert np.linalg.norm(moved - points - wave(points), axis=1).mean() < 0.5
    assert np.linalg.norm(moved - points, axis=1).mean() > 2.5
    np.testing.assert_allclose(waved.warp_points(moved, inverse=True), points, atol=5e-3)
    far = np.array([[0.0, 0.0, 500.0]])
    np.testing.assert_allclose(waved.warp_points(far, inverse=True) + waved.field[:, 15, 14, -1], far, atol=2.0)
    assert waved.warp_points(np.zeros((0, 3)), inverse=True).shape == (0, 3)


def test_paths_and_images_of_other_libraries_give_the_same_registration(tmp_path: Path) -> None:
    fixed, moving = scan_on(GRID, wave), scan_on(GRID)
    images = [nib.Nifti1Image(scan.image[0], GRID.affine) for scan in (fixed, moving)]
    for name, image in zip(("fixed", "moving"), images, strict=True):
        nib.save(image, tmp_path / f"{name}.nii.gz")
    paths = [str(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
    expected = register(fixed, moving, predictor(), iterations=3)
    for inputs in (paths, images, [sitk.ReadImage(path) for path in paths]):
        registration = register(*inputs, predictor(), iterations=3, progress=False)
        np.testing.assert_allclose(registration.field, expected.field, atol=1e-4)
        np.testing.assert_allclose(registration.warp_image(inputs[1]), expected.warp_image(), atol=1e-3)
    with pytest.raises(DataError, match="without affine"):
        register(fixed.image[0], moving, predictor())
    with pytest.raises(UsageError, match="device 'cpu' with a Predictor"):
        register(fixed, moving, predictor(), device="cpu")


def test_a_bundle_folder_is_a_predictor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    manifest = intensity_bundle(4.0).manifest
    model = manifest.model.model_copy(update={"options": {"widths": [4]}})
    network = create_model("unet3d", 1, 2, widths=[4])
    save_bundle(tmp_path / "bundle", network, manifest.model_copy(update={"model": model}), load_recipe("default"))
    registration = register(scan_on(GRID), scan_on(GRID), str(tmp_path / "bundle"), iterations=1, device="cpu")
    assert registration.metrics.network == "unet3d"
    assert registration.metrics.bundle == str(tmp_path / "bundle")
    assert (registration.field == 0).all()


def test_a_registration_is_short_in_text_and_a_table_and_a_figure(waved: Registration) -> None:
    metrics = waved.metrics
    length = np.sqrt((waved.field.astype(float) ** 2).sum(0))
    assert metrics.displacement_mm.max == pytest.approx(length.max(), rel=1e-5)
    assert metrics.initial_mm == (0, 0, 0)
    assert metrics.overlap_fraction == 1
    assert metrics.warnings == []
    assert repr(waved) == f"Registration(scan.nii.gz → scan.nii.gz: {metrics})"
    assert f"mean displacement {length.mean():.2f} mm, max {length.max():.2f} mm; 0.00 % of voxels folded" in str(
        metrics
    )
    before, after = metrics.feature_distance[0].before, metrics.feature_distance[-1].after
    assert f"<td>feature distance</td><td>{before:.3f}</td><td>{after:.3f}</td>" in waved._repr_html_()
    assert RegistrationMetrics.model_validate_json(metrics.model_dump_json()) == metrics
    labels = (scan_on(GRID).image[0] > 1).astype(np.uint8)
    titles = {axes.get_label() for axes in waved.show(moving_labels=labels).axes}
    assert {"difference after axial", "labels after coronal", "displacement sagittal"} <= titles


def test_former_spellings_are_accepted_with_a_warning() -> None:
    for option, former, now in (
        ("init", "centres", "centers"),
        ("features", "hidden", "penultimate"),
        ("features", "scores", "probabilities"),
    ):
        with pytest.warns(DeprecationWarning, match=f"use '{now}'"):
            options = RegisterOptions(**{option: former})  # type: ignore[arg-type]
        assert getattr(options, option) == now


def test_penultimate_features_have_a_fifth_of_the_weight_and_unit_variance() -> None:
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.normal(3, [[[[2.0]]], [[[0.1]]], [[[5.0]]]], (3, 8, 8, 8))).float() for _ in range(2)]
    maps[0][1] = maps[1][1] = 7.0  # a constant feature is removed
    grid = Grid((8, 8, 8), np.eye(4))
    groups = feature_groups("both", 3, 1)
    assert groups == [(2, pytest.approx(0.2)), (1, pytest.approx(0.8))]
    assert feature_groups("probabilities", 3, 1) == [(3, 1.0)]
    normalised = normalise_features(ScanFeatures(maps[0], grid), ScanFeatures(maps[1], grid), groups)
    sd = torch.cat([side.maps.flatten(1) for side in normalised], 1).std(1)
    # Weights 0.2 and 0.8 of two features, with a mean weight of 1.
    np.testing.assert_allclose(sd, [0.4, 1.6], rtol=1e-5)


def test_folding_and_small_overlap_are_warned_of(waved: Registration) -> None:
    jacobian = waved.metrics.jacobian.model_copy(update={"folding_fraction": 0.02})
    folded, disjoint = (
        waved.metrics.model_copy(update=update) for update in ({"jacobian": jacobian}, {"overlap_fraction": 0.4})
    )
    assert folded.warnings[0].startswith("2.0 % of the voxels are folded")
    assert disjoint.warnings[0].startswith("only 40 % of the fixed scan is inside the moving scan")
    assert len(folded.warnings) == len(disjoint.warnings) == 1
