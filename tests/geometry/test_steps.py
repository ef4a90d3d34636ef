"""Grids and the steps between them: every step comes back, and voxels stay where they are in the patient."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from farvox.errors import DataError
from farvox.geometry import Grid, Orient, Resample, interpolation_matrix, mm_to_voxel_matrix, patch_bounds, sample_patch

ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def oblique(order: tuple[int, ...], signs: tuple[int, ...], degrees: float = 12.0) -> np.ndarray:
    """Affine whose axis n runs mostly along patient axis order[n], turned by `degrees`, spacing 0.7, 1.9, 3.3 mm."""
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.5, -0.6, 0.62])).as_matrix()
    axes = np.zeros((3, 3))
    for axis in range(3):
        axes[order[axis], axis] = signs[axis]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * (0.7, 1.9, 3.3)
    affine[:3, 3] = (-31.0, 12.5, 77.0)
    return affine


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_orient_returns_and_keeps_places(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    grid = Grid((5, 7, 4), oblique(order, signs))
    step = Orient.to_canonical(grid)
    assert step.target.axcodes == "RAS"
    array = np.arange(2 * grid.n_voxels).reshape(2, *grid.shape)
    turned = step.apply(array)
    assert turned.shape[1:] == step.target.shape
    np.testing.assert_array_equal(step.invert(turned), array)
    for voxel in ((0, 0, 0), (4, 6, 3), (1, 5, 2)):
        (i, j, k) = np.round(step.target.mm_to_voxel(grid.voxel_to_mm(np.array([voxel], float)))[0]).astype(int)
        assert turned[1, i, j, k] == array[(1, *voxel)]


def test_spacing_and_codes_of_an_oblique_grid() -> None:
    grid = Grid((10, 10, 10), oblique((2, 0, 1), (-1, 1, 1)))
    np.testing.assert_allclose(grid.spacing, (0.7, 1.9, 3.3))
    assert grid.axcodes == "IRA"
    assert grid.voxel_ml == pytest.approx(0.7 * 1.9 * 3.3 / 1000)
    assert Grid((3, 1, 1), np.diag([2.0, 1, 1, 1])).diagonal_mm == pytest.approx(4.0)


def test_mismatch_names_what_differs() -> None:
    affine = oblique((0, 1, 2), (1, 1, 1))
    grid = Grid((8, 8, 8), affine)
    assert grid.difference_to(Grid((8, 8, 8), affine + 1e-5)) is None
    assert "shape 8×8×9" in str(grid.difference_to(Grid((8, 8, 9), affine)))
    moved = affine.copy()
    moved[0, 3] += 1.0
    assert "1 mm" in str(grid.difference_to(Grid((8, 8, 8), moved)))


@pytest.mark.parametrize(("voxels", "agrees"), [(0.04, True), (0.06, False), (0.5, False)])
def test_grids_agree_up_to_a_twentieth_of_a_voxel(voxels: float, agrees: bool) -> None:
    grid = Grid((8, 8, 8), np.diag([0.7, 1.9, 3.3, 1]))
    moved = grid.affine.copy()
    moved[2, 3] += voxels * 0.7  # in voxels of the finest axis
    assert (grid.difference_to(Grid((8, 8, 8), moved)) is None) is agrees


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4, 4), np.eye(4), r"2 dimensions \(4×4\); expected: 3"),
        ((4, 4, 0), np.eye(4), "no voxels"),
        ((4, 4, 4), np.eye(3), "an affine of shape 3×3; expected: 4×4"),
        ((4, 4, 4), np.zeros((4, 4)), "the affine is singular: voxel spacing 0, 0, 0 mm"),
        ((4, 4, 4), np.full((4, 4), np.nan), "NaN or infinite"),
        ((4, 4, 4), np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_useless_grids_are_refused(shape: tuple[int, int, int], affine: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Grid(shape, affine)


@given(st.integers(1, 40), st.integers(1, 40))
def test_interpolation_rows_sum_to_one_and_are_not_negative(source: int, target: int) -> None:
    matrix = interpolation_matrix(source, target)
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert matrix.min() >= 0


@given(st.integers(2, 30), st.integers(1, 30))
def test_interpolation_finds_a_ramp_inside(source: int, target: int) -> None:
    values = interpolation_matrix(source, target) @ np.arange(source, dtype=float)
    wanted = (np.arange(target) + 0.5) * source / target - 0.5
    reach = max(source / target / 2, 1.0)
    inside = (wanted >= reach) & (wanted <= source - 1 - reach)
    np.testing.assert_allclose(values[inside], wanted[inside], atol=1e-9 * source)


def test_resample_slabs_equal_the_whole_and_field_of_view_is_kept() -> None:
    grid = Grid((9, 14, 11), oblique((1, 0, 2), (1, -1, 1)))
    step = Resample.to_spacing(grid, (1.1, 1.0, 5.0))
    np.testing.assert_allclose(np.array(step.target.shape) * step.target.spacing, np.array(grid.shape) * grid.spacing)
    low, high = np.full((1, 3), -0.5), np.array([grid.shape], float) - 0.5
    np.testing.assert_allclose(step.target.voxel_to_mm(low), grid.voxel_to_mm(low))
    np.testing.assert_allclose(step.target.voxel_to_mm(np.array([step.target.shape]) - 0.5), grid.voxel_to_mm(high))
    image = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    whole = step.apply(image)
    assert whole.shape == (2, *step.target.shape)
    for start in range(step.target.shape[2]):
        first, last = step.source_range(start, start + 1)
        part = step.apply(image[..., first:last], start, start + 1, offset=first)
        torch.testing.assert_close(part[..., 0], whole[..., start])


def test_resample_of_constant_and_of_identity() -> None:
    grid = Grid((6, 5, 7), np.eye(4))
    up = Resample.to_shape(grid, (11, 9, 4))
    torch.testing.assert_close(up.apply(np.full((1, 6, 5, 7), 3.5)), torch.full((1, 11, 9, 4), 3.5))
    image = np.random.default_rng(1).normal(size=(1, 6, 5, 7)).astype(np.float32)
    assert np.array_equal(Resample.to_spacing(grid, (1, 1, 1)).apply(image).numpy(), image)


def test_labels_survive_up_and_down_and_keep_their_values() -> None:
    grid = Grid((20, 20, 20), np.eye(4))
    classes = np.zeros(grid.shape, np.uint8)
    classes[3:9, 3:9, 3:9], classes[11:18, 4:15, 6:16], classes[:, :, 19] = 1, 7, 255
    up = Resample.to_shape(grid, (40, 40, 40))
    back = up.inverse.apply_labels(up.apply_labels(classes))
    np.testing.assert_array_equal(back, classes)


@given(st.integers(0, 2**31), st.booleans())
def test_patch_agrees_with_scipy(seed: int, nearest: bool) -> None:
    rng = np.random.default_rng(seed)
    volume = rng.normal(size=(1, 7, 9, 6))
    matrix = np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    centre, shape = rng.uniform(1.5, 4.5, 3), (4, 5, 3)
    found = sample_patch(torch.from_numpy(volume), matrix, centre, shape, nearest=nearest)[0].numpy()
    out = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), -1)
    places = out @ matrix.T + centre
    wanted = map_coordinates(volume[0], np.moveaxis(places, -1, 0), order=0 if nearest else 1, mode="constant")
    inside = ((places > 0.01) & (places < np.array(volume.shape[1:]) - 1.01)).all(-1)
    if nearest:
        inside &= (np.abs(places % 1 - 0.5) > 1e-3).all(-1)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)


def test_patch_from_its_own_block_equals_patch_from_the_volume() -> None:
    rng = np.random.default_rng(3)
    volume = torch.from_numpy(rng.normal(size=(1, 30, 25, 20)))
    matrix = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    centre, shape = np.array([14.2, 3.0, 18.0]), (8, 8, 6)
    bounds = patch_bounds(matrix, centre, shape, (30, 25, 20))
    i, j, k = bounds
    local = centre - [bound.start for bound in bounds]
    torch.testing.assert_close(
        sample_patch(volume[:, i, j, k], matrix, local, shape), sample_patch(volume, matrix, centre, shape)
    )
    assert (i.stop - i.start) * (j.stop - j.start) * (k.stop - k.start) < 30 * 25 * 20 / 4


def test_a_turn_in_mm_is_sheared_in_thick_voxels() -> None:
    turn = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    matrix = mm_to_voxel_matrix(turn, np.array([1.0, 1.0, 8.0]))
    np.testing.assert_allclose(matrix @ [0, 8, 0], [0, 0, 1], atol=1e-12)
