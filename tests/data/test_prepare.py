"""Preparation: intensities normalised, slabs equal to the whole, scans of any order in one space."""

from __future__ import annotations

import numpy as np
import pytest

from farvox.data.prepare import IntensityStep, Preparation, fixed_step, to_network_space
from farvox.geometry import Grid
from tests.geometry.test_steps import oblique


def preparation(spacing: tuple[float, float, float], channels: int = 1) -> Preparation:
    return Preparation(
        spacing=spacing,
        channels=tuple(f"c{n}" for n in range(channels)),
        intensity=tuple(IntensityStep(kind="per-scan") for _ in range(channels)),
    )


@pytest.mark.parametrize("scale", [1.0, 1.7e6 / 112])
def test_per_scan_normalisation_ignores_scale_and_offset(scale: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(300, 40, size=(1, 30, 31, 32))
    grid = Grid((30, 31, 32), np.eye(4))
    found = to_network_space(image * scale + 5, grid, preparation((1, 1, 1))).slab(0, 32)
    wanted = to_network_space(image, grid, preparation((1, 1, 1))).slab(0, 32)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert abs(float(found.mean())) < 0.01
    assert float(found.std()) == pytest.approx(1, abs=0.01)


def test_a_large_empty_background_is_left_out_of_the_statistics() -> None:
    brain = np.random.default_rng(1).normal(100, 10, size=8000)
    step = fixed_step(np.concatenate([np.zeros(20000), brain]))
    assert step.mean == pytest.approx(100, abs=0.5)
    assert step.sd == pytest.approx(10, abs=0.5)


def test_a_fixed_step_keeps_hounsfield_units_comparable() -> None:
    step = IntensityStep(kind="fixed", low=-100, high=300, mean=100, sd=50)
    image = np.array([-1000, -100, 100, 300, 2000], np.int16).reshape(1, 5, 1, 1)
    space = to_network_space(
        image, Grid((5, 1, 1), np.eye(4)), Preparation(spacing=(1, 1, 1), channels=("CT",), intensity=(step,))
    )
    np.testing.assert_allclose(space.slab(0, 1).ravel(), [-4, -4, 0, 4, 4])


def test_slabs_of_a_turned_resampled_scan_equal_the_whole() -> None:
    grid = Grid((13, 9, 17), oblique((2, 0, 1), (-1, 1, -1)))
    image = np.random.default_rng(2).normal(size=(2, *grid.shape)).astype(">f4")
    space = to_network_space(image, grid, preparation((1.3, 2.0, 0.9), 2))
    whole = space.slab(0, space.grid.shape[2])
    for start in range(0, space.grid.shape[2], 4):
        stop = min(start + 4, space.grid.shape[2])
        np.testing.assert_allclose(space.slab(start, stop), whole[..., start:stop], atol=1e-5)


def test_the_scan_itself_is_not_changed() -> None:
    image = np.random.default_rng(3).normal(size=(1, 6, 6, 6)).astype(np.float32)
    before = image.copy()
    to_network_space(image, Grid((6, 6, 6), np.eye(4)), preparation((1, 1, 1))).slab(0, 6)
    np.testing.assert_array_equal(image, before)
