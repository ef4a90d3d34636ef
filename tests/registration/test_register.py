"""Displacements that are known are found; grids, axes and dimensions of the scans do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.registration import RegisterOptions, Registration, register
from tests.registration.made import anatomy, grid_about_origin, look_bundle, scan_on, turned, wave

HIDDEN = RegisterOptions(features="hidden", smoothness=2.0)
GRID = grid_about_origin((30, 28, 26), (2.0, 2.0, 2.0))
INNER = (slice(5, -5),) * 3


def places(grid: Grid) -> np.ndarray:
    """(N, 3) mm of all voxels."""
    return grid.voxel_to_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3))


def error_mm(field: np.ndarray, grid: Grid, displace: np.ndarray) -> float:
    """Mean length of the difference to the known displacement (N, 3), away from the faces."""
    wanted = displace.T.reshape(3, *grid.shape)
    return float(np.sqrt(((field - wanted) ** 2).sum(0))[INNER].mean())


def test_a_scan_onto_itself_stays() -> None:
    found = register(scan_on(GRID), scan_on(GRID), look_bundle(), HIDDEN)
    assert (found.field == 0).all()
    np.testing.assert_allclose(found.warp(scan_on(GRID).image, GRID), scan_on(GRID).image, atol=1e-4)


@pytest.fixture(scope="module")
def waved() -> Registration:
    """A scan registered with itself as a wave has left it, seen by the network as a whole."""
    return register(scan_on(GRID, wave), scan_on(GRID), look_bundle(), HIDDEN)


@pytest.mark.parametrize("window", [None, (16, 16, 16)])
def test_a_known_smooth_displacement_is_recovered(waved: Registration, window: tuple[int, int, int] | None) -> None:
    fixed, moving = scan_on(GRID, wave), scan_on(GRID)
    found = register(fixed, moving, look_bundle(window=window), HIDDEN) if window else waved
    still, known = error_mm(0 * found.field, GRID, wave(places(GRID))), wave(places(GRID))
    assert still > 2.5
    assert error_mm(found.field, GRID, known) < 0.5  # a quarter of a voxel
    before = np.abs(moving.image - fixed.image)[0][INNER].mean()
    after = np.abs(found.warp(moving.image, GRID) - fixed.image)[0][INNER].mean()
    assert after < 0.15 * before
    assert all(late < early for early, late in found.distances)


def test_grids_of_other_spacing_orientation_and_obliqueness_meet_in_mm() -> None:
    # The moving scan: axes left, inferior, posterior, thinner voxels, turned by 12 degrees.
    axes = turned(12) @ np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
    moving_grid = grid_about_origin((44, 40, 34), (1.6, 1.5, 2.0), axes)
    fixed, moving = scan_on(GRID, wave), scan_on(moving_grid)
    found = register(fixed, moving, look_bundle(), HIDDEN)
    assert error_mm(found.field, GRID, wave(places(GRID))) < 0.6


def test_the_field_lies_in_the_order_of_the_fixed_scan() -> None:
    turn = np.array([[0.0, 0, 1], [-1, 0, 0], [0, 1, 0]])  # axes posterior, superior, right
    grid = grid_about_origin((28, 26, 30), (2.0, 2.0, 2.0), turn)
    fixed = scan_on(grid, wave)
    found = register(fixed, scan_on(GRID), look_bundle(), HIDDEN)
    assert found.field.shape == (3, 28, 26, 30)
    assert error_mm(found.field, grid, wave(places(grid))) < 0.5


def test_single_slices_move_within_their_plane() -> None:
    grid = grid_about_origin((40, 36, 1), (1.5, 1.5, 4.0), turned(20))
    plane = grid.affine[:3, :2] / grid.spacing[:2]

    def within(points: np.ndarray) -> np.ndarray:
        return wave(points) @ plane @ plane.T

    found = register(scan_on(grid, within), scan_on(grid), look_bundle(1.5), HIDDEN)
    across = grid.affine[:3, 2] / grid.spacing[2]
    assert np.abs(np.tensordot(across, found.field, 1)).max() < 1e-5
    wanted = within(places(grid)).T.reshape(3, *grid.shape)
    away = np.sqrt(((found.field - wanted) ** 2).sum(0))[6:-6, 6:-6]
    assert np.sqrt((wanted**2).sum(0))[6:-6, 6:-6].mean() > 2
    assert away.mean() < 0.6


def test_centres_and_search_find_a_scan_that_lies_elsewhere() -> None:
    far = grid_about_origin((30, 28, 26), (2.0, 2.0, 2.0)).affine.copy()
    far[:3, 3] += (400, -300, 250)
    moving = Scan(scan_on(GRID).image, Grid(GRID.shape, far), Path("moving.nii.gz"))
    with pytest.raises(DataError, match="do not overlap in space: their middles are 559 mm apart") as error:
        register(scan_on(GRID), moving, look_bundle(), HIDDEN)
    assert "--start centres" in str(error.value)
    found = register(scan_on(GRID), moving, look_bundle(), RegisterOptions("hidden", "centres"))
    np.testing.assert_allclose(found.start, (400, -300, 250), atol=1e-9)
    assert np.abs(found.field - found.start[:, None, None, None]).max() < 0.02

    shifted = scan_on(GRID, lambda x: x * 0 + (11.0, -9.0, 7.0))
    found = register(shifted, moving, look_bundle(), RegisterOptions("hidden", "search", smoothness=2.0))
    assert np.abs(found.start - (411, -309, 257)).max() < 3
    wanted = np.broadcast_to(np.array([411.0, -309, 257]), places(GRID).shape)
    assert error_mm(found.field, GRID, wanted) < 0.6


def test_labels_follow_the_field(waved: Registration) -> None:
    def structures(points: np.ndarray) -> np.ndarray:
        return np.where(anatomy(points) > 1, 7, np.where(anatomy(points) < -1, 300, 0)).astype(np.uint16)

    truth = structures(places(GRID) + wave(places(GRID))).reshape(GRID.shape)
    own = structures(places(GRID)).reshape(GRID.shape)
    for labels, least, most in ((waved.warp_labels(own, GRID), 0.88, 1), (own, 0, 0.8)):
        for value in (7, 300):
            dice = 2 * ((labels == value) & (truth == value)).sum() / ((labels == value).sum() + (truth == value).sum())
            assert least < dice < most
    assert waved.warp_labels(own, GRID).dtype == np.uint16


def test_what_comes_from_outside_is_filled() -> None:
    ones = Scan(scan_on(GRID).image + 5, GRID, Path("ones"))
    found = register(ones, ones, look_bundle(), RegisterOptions(iterations=0))
    moved = type(found)(GRID, found.field + np.float32(2.0 * 10), found.start, [], {})
    image = moved.warp(ones.image, GRID)
    assert (image[:, -9:] == ones.image.min()).all()
    np.testing.assert_allclose(image[0, :-10, :-10, :-10], ones.image[0, 10:, 10:, 10:], atol=1e-4)
    assert (moved.warp_labels(np.ones(GRID.shape, np.uint8), GRID).sum()) == 20 * 18 * 16


def test_options_that_cannot_be() -> None:
    for wrong, word in (
        ({"features": "deep"}, "hidden, scores, both"),
        ({"start": "here"}, "header, centres, search"),
        ({"iterations": -1}, "0 or more"),
        ({"smoothness": float("nan")}, "0 or more"),
    ):
        with pytest.raises(UsageError, match=word):
            RegisterOptions(**wrong)  # type: ignore[arg-type]


def test_scans_that_cannot_be_registered() -> None:
    flat = scan_on(grid_about_origin((30, 28, 1), (2, 2, 2)), name="flat.nii.gz")
    with pytest.raises(DataError, match=r"flat\.nii\.gz is a single slice and scan\.nii\.gz a volume of 30×28×26"):
        register(scan_on(GRID), flat, look_bundle())
    with pytest.raises(DataError, match=r"1 channel\(s\); expected: 2 \(T1, T2\)"):
        register(scan_on(GRID), scan_on(GRID), look_bundle(channels=("T1", "T2")))
    for value, word in ((np.nan, "NaN"), (3.0, "constant")):
        bad = Scan(np.full((1, *GRID.shape), value, np.float32), GRID, Path("bad.nii.gz"))
        with pytest.raises(DataError, match=word):
            register(scan_on(GRID), bad, look_bundle())
