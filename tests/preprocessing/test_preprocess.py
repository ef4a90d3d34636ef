"""Preprocessing: intensities normalised, slabs equal to the whole, scans of any order in one space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from farvox.geometry import Grid
from farvox.preprocessing.config import IntensityNormalization, Preprocessing, fit_fixed_normalization
from farvox.preprocessing.preprocess import preprocess
from tests.geometry.test_steps import oblique


def preprocessing(spacing: tuple[float, float, float], channels: int = 1) -> Preprocessing:
    return Preprocessing(
        spacing=spacing,
        channels=tuple(f"c{n}" for n in range(channels)),
        intensity=tuple(IntensityNormalization(kind="percentile") for _ in range(channels)),
    )


@pytest.mark.parametrize("scale", [1.0, 1.7e6 / 112])
def test_per_scan_normalisation_ignores_scale_and_offset(scale: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(300, 40, size=(1, 30, 31, 32))
    grid = Grid((30, 31, 32), np.eye(4))
    found = preprocess(image * scale + 5, grid, preprocessing((1, 1, 1))).slab(0, 32)
    wanted = preprocess(image, grid, preprocessing((1, 1, 1))).slab(0, 32)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert abs(float(found.mean())) < 0.01
    assert float(found.std()) == pytest.approx(1, abs=0.01)


def test_a_large_empty_background_is_left_out_of_the_statistics() -> None:
    brain = np.random.default_rng(1).normal(100, 10, size=8000)
    step = fit_fixed_normalization(np.concatenate([np.zeros(20000), brain]))
    assert step.mean == pytest.approx(100, abs=0.5)
    assert step.sd == pytest.approx(10, abs=0.5)


def test_a_fixed_step_keeps_hounsfield_units_comparable() -> None:
    step = IntensityNormalization(kind="dataset", low=-100, high=300, mean=100, sd=50)
    image = np.array([-1000, -100, 100, 300, 2000], np.int16).reshape(1, 5, 1, 1)
    space = preprocess(
        image, Grid((5, 1, 1), np.eye(4)), Preprocessing(spacing=(1, 1, 1), channels=("CT",), intensity=(step,))
    )
    np.testing.assert_allclose(space.slab(0, 1).ravel(), [-4, -4, 0, 4, 4])


def test_z_score_clips_nothing() -> None:
    image = np.array([-1.0, 0, 0, 0, 0, 0, 0, 11]).reshape(1, 8, 1, 1)
    mean, sd = 10 / 8, (122 / 8 - (10 / 8) ** 2) ** 0.5
    preprocessing = Preprocessing(
        spacing=(1, 1, 1), channels=("MR",), intensity=(IntensityNormalization(kind="zscore"),)
    )
    space = preprocess(image, Grid((8, 1, 1), np.eye(4)), preprocessing)
    np.testing.assert_allclose(space.slab(0, 1).ravel(), (image.ravel() - mean) / sd, rtol=1e-6)


def test_slabs_of_a_turned_resampled_scan_equal_the_whole() -> None:
    grid = Grid((13, 9, 17), oblique((2, 0, 1), (-1, 1, -1)))
    image = np.random.default_rng(2).normal(size=(2, *grid.shape)).astype(">f4")
    space = preprocess(image, grid, preprocessing((1.3, 2.0, 0.9), 2))
    whole = space.slab(0, space.grid.shape[2])
    for start in range(0, space.grid.shape[2], 4):
        stop = min(start + 4, space.grid.shape[2])
        np.testing.assert_allclose(space.slab(start, stop), whole[..., start:stop], atol=1e-5)


def test_the_scan_itself_is_not_changed() -> None:
    image = np.random.default_rng(3).normal(size=(1, 6, 6, 6)).astype(np.float32)
    before = image.copy()
    preprocess(image, Grid((6, 6, 6), np.eye(4)), preprocessing((1, 1, 1))).slab(0, 6)
    np.testing.assert_array_equal(image, before)


def test_a_fixed_shape_takes_the_whole_scan_whatever_its_size() -> None:
    step = IntensityNormalization(kind="dataset", low=-32768, high=32767, mean=-1024, sd=1024)
    fixed = Preprocessing(shape=(4, 6, 5), channels=("CT",), intensity=(step,))
    i = np.arange(8.0)[:, None, None] * np.ones((8, 3, 5))
    space = preprocess(i[None], Grid((8, 3, 5), np.diag([2, 4, 1, 1])), fixed)
    assert space.grid.shape == (4, 6, 5)
    np.testing.assert_allclose(space.grid.spacing, (4, 2, 1))
    # Two voxels become one: 0 and 1 have the mean 0.5, seen through (HU + 1024) / 1024; the line's ends lie flat.
    np.testing.assert_allclose(space.slab(0, 5)[0, 1:3, 0, 0], 1 + np.array([2.5, 4.5]) / 1024, rtol=1e-6)


def test_axes_point_where_the_network_wants_them_and_come_back() -> None:
    grid = Grid((3, 4, 5), oblique((2, 0, 1), (-1, 1, -1)))
    image = np.random.default_rng(4).normal(size=(1, 3, 4, 5)).astype(np.float32)
    step = IntensityNormalization(kind="dataset", low=-9, high=9)
    shape = (4, 5, 3)
    made = [Preprocessing(shape=shape, axes=axes, channels=("CT",), intensity=(step,)) for axes in ("RAS", "LAI")]
    ras, lai = (preprocess(image, grid, preprocessing) for preprocessing in made)
    assert ras.orient.target.shape == shape
    assert (ras.grid.axcodes, lai.grid.axcodes) == ("RAS", "LAI")
    torch.testing.assert_close(lai.slab(0, shape[2]), ras.slab(0, shape[2]).flip(1, 3))
    np.testing.assert_array_equal(lai.orient.invert(lai.orient.apply(image)), image)
    corner = np.array([[0, 0, 0]])
    np.testing.assert_allclose(
        lai.grid.voxel_to_mm(corner), ras.grid.voxel_to_mm(np.array([[shape[0] - 1, 0, shape[2] - 1]])), atol=1e-9
    )


def test_pooling_is_that_of_a_scan_at_half_the_spacing() -> None:
    image = np.random.default_rng(5).normal(size=(1, 12, 10, 8)).astype(np.float32)
    grid = Grid((12, 10, 8), np.diag([1.5, 1.5, 1.5, 1]))
    step = IntensityNormalization(kind="dataset", low=-9, high=9)
    made = Preprocessing(spacing=(3, 3, 3), antialias_pooling=True, channels=("CT",), intensity=(step,))
    space = preprocess(image, grid, made)
    assert space.grid.shape == (6, 5, 4)
    # The scan read half a voxel further along each axis, at its own spacing, then the mean over 3×3×3 at stride 2.
    moved = torch.from_numpy(image)
    for axis in (1, 2, 3):
        last = moved.narrow(axis, moved.shape[axis] - 1, 1)
        moved = (moved + torch.cat((moved.narrow(axis, 1, moved.shape[axis] - 1), last), axis)) / 2
    wanted = torch.nn.functional.avg_pool3d(moved[:, 1:, 1:, 1:], 3, stride=2)
    whole = space.slab(0, 4)
    torch.testing.assert_close(whole[:, 1:, 1:, 1:], wanted)
    torch.testing.assert_close(space.slab(1, 3), whole[..., 1:3])


def test_a_preparation_says_one_size() -> None:
    step = IntensityNormalization(kind="percentile")
    for size in ({}, {"spacing": (1, 1, 1), "shape": (4, 4, 4)}, {"shape": (0, 4, 4)}):
        with pytest.raises(ValidationError):
            Preprocessing(**size, channels=("CT",), intensity=(step,))
    with pytest.raises(ValidationError):
        Preprocessing(spacing=(1, 1, 1), axes="SAR", channels=("CT",), intensity=(step,))
