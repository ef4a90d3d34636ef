"""Splines, the bending penalty and the Jacobian determinant, compared with formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.geometry import Grid
from farvox.registration.field import Displacement, Spline, axis_coordinates, bending_penalty
from farvox.registration.metrics import jacobian_determinant, jacobian_statistics
from tests.registration.made import grid_about_origin, rotated_axes


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    spacing=st.floats(0.5, 3),
    control=st.floats(2, 15),
    slope=st.tuples(*[st.floats(-0.2, 0.2)] * 3),
)
def test_a_spline_reproduces_linear_functions_up_to_the_faces(
    shape: tuple[int, int, int], spacing: float, control: float, slope: tuple[float, float, float]
) -> None:
    grid = grid_about_origin(shape, (spacing,) * 3)
    spline = Spline.zeros(grid, control)
    knots = [(np.arange(n) - (n - 1) / 2) * control for n in spline.coefficients.shape[1:]]
    used = [0.0 if n == 1 else s for n, s in zip(shape, slope, strict=True)]
    i, j, k = np.meshgrid(*[s * line for s, line in zip(used, knots, strict=True)], indexing="ij")
    plane = torch.from_numpy(1 + i + j + k).float().expand(3, -1, -1, -1)
    x, y, z = np.meshgrid(*[s * line for s, line in zip(used, axis_coordinates(grid), strict=True)], indexing="ij")
    np.testing.assert_allclose(
        Spline(plane, control).evaluate(axis_coordinates(grid)), np.broadcast_to(1 + x + y + z, (3, *shape)), atol=1e-4
    )
    assert bending_penalty(plane, control).item() < 1e-8


def test_the_bending_penalty_is_the_squared_distance_to_the_filtered_field() -> None:
    bump = torch.zeros(3, 7, 7, 7)
    bump[0, 3, 3, 3] = 1.0
    # Filtered, the bump keeps (4/6)³ of itself and leaves (4/6)²(1/6), (4/6)(1/6)² and (1/6)³ around it.
    left = (1 - (4 / 6) ** 3) ** 2 + sum(
        count * ((4 / 6) ** (3 - n) * (1 / 6) ** n) ** 2 for n, count in ((1, 6), (2, 12), (3, 8))
    )
    assert bending_penalty(bump, 1.0).item() == pytest.approx(left / bump.numel(), rel=1e-5)
    assert bending_penalty(5 * bump, 5.0).item() == pytest.approx(left / bump.numel(), rel=1e-5)


def test_a_displacement_along_the_grid_axes_becomes_one_along_ras_axes() -> None:
    axes = rotated_axes(25)
    grid = grid_about_origin((6, 5, 4), (1.0, 2.0, 3.0), axes)
    spline = Spline(torch.tensor([1.0, -2.0, 0.5])[:, None, None, None].expand(3, 9, 9, 9), 10.0)
    field = Displacement(grid, np.array([10.0, 0.0, 0.0]), [spline, spline]).on_grid(grid)
    expected = axes @ np.array([2.0, -4.0, 1.0]) + [10, 0, 0]
    np.testing.assert_allclose(field, np.broadcast_to(expected[:, None, None, None], field.shape), atol=1e-5)


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_determinant_of_a_linear_field_on_an_oblique_grid(depth: int) -> None:
    grid = grid_about_origin((7, 6, depth), (0.8, 1.5, 3.0), rotated_axes(30))
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    stretch = np.array([[0.2, 0.1, 0.0], [0.0, -0.3, 0.05], [0.1, 0.0, 0.4]])
    if depth == 1:  # the derivative across the slice is 0
        across = grid.affine[:3, 2] / grid.spacing[2]
        stretch = stretch @ (np.eye(3) - np.outer(across, across))
    field = (grid.voxel_to_mm(voxels) @ stretch.T).T.reshape(3, *grid.shape).astype(np.float32)
    np.testing.assert_allclose(jacobian_determinant(field, grid), np.linalg.det(np.eye(3) + stretch), atol=1e-4)


def test_determinant_of_a_curved_field() -> None:
    n, size = 41, 0.5
    grid = grid_about_origin((n, n, 3), (size, size, size))
    x, y, _ = np.meshgrid(*axis_coordinates(grid), indexing="ij")
    field = np.stack((2 * np.sin(x / 4), 0.05 * x * y, 0 * x)).astype(np.float32)
    exact = (1 + np.cos(x / 4) / 2) * (1 + 0.05 * x)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(jacobian_determinant(field, grid)[inner], exact[inner], atol=2e-3)
    statistics = jacobian_statistics(jacobian_determinant(field, grid))
    assert statistics.folding_fraction == 0
    assert statistics.log_jacobian_sd == pytest.approx(float(np.log(exact).std()), rel=0.02)


def test_a_fold_is_counted() -> None:
    grid = Grid((20, 2, 2), np.eye(4))
    field = np.zeros((3, 20, 2, 2), dtype=np.float32)
    field[0] = np.where(np.arange(20) < 10, 0, -2 * (np.arange(20) - 9))[:, None, None]  # x is reversed after 9
    determinant = jacobian_determinant(field, grid)
    np.testing.assert_allclose(determinant[:9], 1)
    np.testing.assert_allclose(determinant[10:], -1)
    np.testing.assert_allclose(determinant[9], 0, atol=1e-6)
    assert jacobian_statistics(determinant).model_dump() == {
        "folding_fraction": 11 / 20,
        "log_jacobian_sd": 0.0,
        "min": -1.0,
        "max": 1.0,
    }
