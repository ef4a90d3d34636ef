"""Reading maps at points: values known by hand, the fast distance against the plain one, gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.errors import UsageError
from farvox.ops.warp import FeatureDistance, warp

sizes = st.tuples(*[st.integers(1, 7)] * 3)


def centres(shape: tuple[int, ...]) -> torch.Tensor:
    """(I, J, K, 3) normalised voxel centres."""
    lines = [(2 * torch.arange(n) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)


@settings(max_examples=30, deadline=None)
@given(shape=sizes)
def test_voxel_centres_give_the_voxels(shape: tuple[int, int, int]) -> None:
    maps = torch.randn(1, 2, *shape)
    for nearest in (False, True):
        found = warp(maps, centres(shape)[None], nearest=nearest)
        torch.testing.assert_close(found, maps, rtol=1e-5, atol=1e-5)


def test_axes_are_i_j_k_and_a_ramp_is_read_exactly() -> None:
    i, j, k = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), torch.arange(9.0), indexing="ij")
    ramp = (100 * i + 10 * j + k)[None, None]
    voxel = torch.tensor([[1.25, 5.5, 2.75], [3.5, 0.125, 7.0]])
    points = (2 * voxel + 1) / torch.tensor([5.0, 7.0, 9.0]) - 1
    wanted = voxel @ torch.tensor([100.0, 10.0, 1.0])
    torch.testing.assert_close(warp(ramp, points[None])[0, 0], wanted, rtol=0, atol=1e-3)
    rounded = warp(ramp, points[None, :1] + 0.01, nearest=True)  # voxel 1.275, 5.535, 2.795
    assert rounded.item() == 100 * 1 + 10 * 6 + 3


def test_outermost_values_hold_up_to_the_faces_and_beyond_comes_the_fill() -> None:
    line = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1, 1)
    places = torch.tensor([-1.2, -1.0, -0.8, 0.9, 1.0, 1.1])
    points = torch.stack((places, torch.zeros(6), torch.zeros(6)), -1)[None]
    assert warp(line, points)[0, 0].tolist() == [1, 1, 1, 4, 4, 4]
    assert warp(line, points, fill=-7)[0, 0].tolist() == [-7, 1, 1, 4, 4, -7]


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 4), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("features", [1, 3, 17])
def test_one_pass_agrees_with_the_plain_distance(shape: tuple[int, int, int], features: int) -> None:
    draw = torch.Generator().manual_seed(len(shape) + features)
    maps = torch.randn(features, *shape, generator=draw)
    wanted = torch.randn(features, 9001, generator=draw)  # two pieces
    points = (torch.rand(9001, 3, generator=draw) * 2.6 - 1.3).requires_grad_()
    answers = []
    for backend in ("reference", "cpu"):
        distance = FeatureDistance(wanted, maps, backend)  # type: ignore[arg-type]
        assert distance.backend == backend
        value = distance(points)
        (gradient,) = torch.autograd.grad(3 * value, points)
        answers.append((value.detach(), gradient))
    torch.testing.assert_close(answers[1][0], answers[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(answers[1][1], answers[0][1], rtol=1e-3, atol=1e-7)


def test_plain_distance_has_the_right_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=draw)
    wanted = torch.randn(3, 20, dtype=torch.float64, generator=draw)
    points = (torch.rand(20, 3, dtype=torch.float64, generator=draw) * 1.2 - 0.6).requires_grad_()
    distance = FeatureDistance(wanted, maps)
    assert distance.backend == "reference"
    assert torch.autograd.gradcheck(distance, points, eps=1e-7, atol=1e-5)


def test_distance_is_absolute_and_rounded_off_near_zero() -> None:
    maps, points = torch.zeros(2, 1, 1, 1), torch.zeros(2, 3)
    wanted = torch.tensor([[0.5, -0.004], [0.01, 0.0]])
    for backend in ("reference", "cpu"):
        value = FeatureDistance(wanted, maps, backend, round_below=0.01)(points)  # type: ignore[arg-type]
        assert value.item() == pytest.approx((0.495 + 0.0008 + 0.005) / 4, rel=1e-5)


def test_equal_features_have_no_distance_and_no_gradient() -> None:
    maps = torch.randn(4, 5, 6, 7)
    points = centres((5, 6, 7)).reshape(-1, 3).requires_grad_()
    wanted = warp(maps[None], points.detach()[None])[0]
    for backend in ("reference", "cpu"):
        value = FeatureDistance(wanted, maps, backend)(points)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(value, points)
        assert value.item() < 1e-9
        assert gradient.abs().max() < 1e-5


def test_a_point_that_is_no_number_reads_inside() -> None:
    maps = torch.ones(1, 3, 3, 3)
    points = torch.full((1, 3), float("nan"))
    assert FeatureDistance(torch.zeros(1, 1), maps, "cpu")(points).item() == pytest.approx(0.995)


def test_backends_that_cannot_be_had() -> None:
    maps = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    with pytest.raises(UsageError, match="float32"):
        FeatureDistance(torch.zeros(1, 1), maps, "cpu")
    with pytest.raises(UsageError, match="expected: auto"):
        FeatureDistance(torch.zeros(1, 1), maps, "numba")  # type: ignore[arg-type]
