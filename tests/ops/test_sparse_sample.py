"""Sparse sampling against interpolation written out voxel by voxel: both conventions, 2D and 3D, unary and paired."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.errors import UsageError
from farvox.ops import SampleGrid, sparse_conv, sparse_sample
from farvox.ops.sparse_sample import reference

SHAPES = {2: (5, 4), 3: (5, 4, 3)}
GRIDS = {2: (3, 2), 3: (2, 3, 2)}


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _offsets(dims: int, pairs: bool, count: int = 4, sigma: float = 0.4) -> torch.Tensor:
    return sigma * (_random(count, 2, dims, seed=1) if pairs else _random(count, dims, seed=1))


def _read(channel: np.ndarray, place: np.ndarray, corners: bool) -> float:
    """Linear interpolation at one normalised place, one corner of the cell after the other, zero outside."""
    sizes = np.array(channel.shape)
    index = (place + 1) * (sizes - 1) / 2 if corners else ((place + 1) * sizes - 1) / 2
    low = np.floor(index).astype(int)
    total = 0.0
    for corner in product((0, 1), repeat=channel.ndim):
        voxel = low + corner
        if np.all(voxel >= 0) and np.all(voxel < sizes):
            total += channel[tuple(voxel)] * np.prod(np.where(corner, index - low, 1 - index + low))
    return total


def _sample(image: torch.Tensor, offsets: torch.Tensor, positions: np.ndarray, corners: bool) -> np.ndarray:
    """`positions` (B, S, d)."""
    batch, channels = image.shape[:2]
    out = np.zeros((batch, channels, len(offsets), positions.shape[1]))
    for b, c, k, s in product(*map(range, out.shape)):
        channel, offset, place = image[b, c].numpy(), offsets[k].numpy(), positions[b, s]
        if offset.ndim == 1:
            out[b, c, k, s] = _read(channel, place + offset, corners)
        else:
            out[b, c, k, s] = _read(channel, place + offset[0], corners) - _read(channel, place + offset[1], corners)
    return out


def _grid_positions(shape: tuple[int, ...], corners: bool) -> np.ndarray:
    if corners:
        axes = [np.linspace(-1, 1, size) for size in shape]
    else:
        axes = [np.array([(i + 0.5) / size * 2 - 1 for i in range(size)]) for size in shape]
    return np.array(list(product(*axes)))[None].repeat(2, axis=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("corners", [False, True])
def test_grid_against_loops(dims: int, pairs: bool, corners: bool) -> None:
    image, offsets = _random(2, 3, *SHAPES[dims]), _offsets(dims, pairs)
    grid = SampleGrid(GRIDS[dims], align_corners=True) if corners else GRIDS[dims]
    expected = _sample(image, offsets, _grid_positions(GRIDS[dims], corners), corners)
    np.testing.assert_allclose(sparse_sample(image, offsets, grid=grid).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
def test_points_against_loops(dims: int, pairs: bool) -> None:
    image, offsets = _random(2, 3, *SHAPES[dims]), _offsets(dims, pairs)
    points = 0.6 * _random(2, 7, dims, seed=2)
    expected = _sample(image, offsets, points.numpy(), False)
    np.testing.assert_allclose(sparse_sample(image, offsets, points=points).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("chunk", [None, 1])
def test_conv_is_sampling_and_weighing(
    dims: int, pairs: bool, groups: int, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk:
        monkeypatch.setattr(reference, "_CHUNK_VALUES", 100)
    image, offsets = _random(2, 3, *SHAPES[dims]), _offsets(dims, pairs)
    weight = _random(6, 12 // groups, seed=4)
    read = _sample(image, offsets, _grid_positions(GRIDS[dims], False), False)
    expected = np.zeros((2, 6, read.shape[3]))
    for o, c, k in product(range(6), range(3), range(4)):
        row = c * 4 + k
        first = o // (6 // groups) * (12 // groups)
        if first <= row < first + 12 // groups:
            expected[:, o] += weight[o, row - first].item() * read[:, c, k]
    found = sparse_conv(image, offsets, weight, grid=GRIDS[dims], groups=groups)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("chunk", [1 << 24, 12])
def test_gradients(pairs: bool, corners: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_CHUNK_VALUES", chunk)
    grid = SampleGrid((2, 1, 2), align_corners=corners)
    inputs = [_random(1, 2, 3, 4, 3), _offsets(3, pairs, count=2), _random(2, 2, seed=3)]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, o, w: sparse_conv(i, o, w, grid=grid, groups=2), inputs)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_for_points(dims: int) -> None:
    inputs = [_random(2, 1, *SHAPES[dims]), _offsets(dims, False), 0.5 * _random(2, 3, dims, seed=7)]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, o, p: sparse_sample(i, o, points=p), inputs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=3, max_size=3), st.booleans())
def test_own_grid_without_offset_is_the_image(shape: list[int], corners: bool) -> None:
    image = _random(1, 2, *shape)
    grid = SampleGrid(tuple(shape), align_corners=corners)
    found = sparse_sample(image, torch.zeros(1, 3, dtype=torch.float64), grid=grid)
    torch.testing.assert_close(found.reshape(image.shape), image)


def test_offset_of_one_voxel_shifts_along_its_own_axis() -> None:
    image = _random(1, 1, 4, 5, 6)
    for axis, size in enumerate(image.shape[2:]):
        offset = torch.zeros(1, 3, dtype=torch.float64)
        offset[0, axis] = 2 / size
        found = sparse_sample(image, offset, grid=image.shape[2:]).reshape(image.shape)
        expected = torch.zeros_like(image)
        expected.narrow(2 + axis, 0, size - 1).copy_(image.narrow(2 + axis, 1, size - 1))
        torch.testing.assert_close(found, expected)


def test_offset_outside_reads_zero_and_has_no_gradient() -> None:
    offsets = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    found = sparse_sample(torch.ones(1, 1, 4, 4, 4), offsets, grid=(2, 2, 2))
    found.sum().backward()
    assert torch.all(found == 0)
    assert torch.all(offsets.grad == 0)


def test_half_precision_is_sampled_in_float32() -> None:
    image, offsets = _random(1, 2, 4, 5, 6).bfloat16(), _offsets(3, False).float()
    expected = sparse_sample(image.float(), offsets, grid=(2, 2, 2)).bfloat16()
    for backend in ("reference", "cpu"):
        torch.testing.assert_close(sparse_sample(image, offsets, grid=(2, 2, 2), backend=backend), expected)


def test_not_a_number_reads_zero_even_where_nothing_is_outside() -> None:
    image, offsets = torch.ones(1, 1, 1, 1, 1), torch.tensor([[float("nan"), 0, 0], [0, 0, float("inf")], [0, 0, 0.0]])
    for backend in ("reference", "cpu"):
        found = sparse_sample(image, offsets, grid=SampleGrid((1, 1, 1), align_corners=True), backend=backend)
        assert found.flatten().tolist() == [0, 0, 1]


def test_reference_answers_in_the_images_type_under_autocast() -> None:
    image, offsets = _random(1, 2, 4, 4, 4).float(), _offsets(3, False).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert sparse_conv(image, offsets, torch.ones(3, 8), grid=(2, 2, 2), backend="reference").dtype == torch.float32


IMAGE, OFFSETS = torch.zeros(2, 3, 4, 4, 4), torch.zeros(5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": torch.zeros(4, 4, 4)}, "image of shape"),
        ({"image": IMAGE.int()}, "image of type torch.int32"),
        ({"image": torch.zeros(1, 1, 0, 4, 4)}, "image of shape"),
        ({"offsets": torch.zeros(5, 2)}, r"expected: \(K, 3\)"),
        ({"offsets": torch.zeros(5, 3, 3)}, "offsets of shape"),
        ({"offsets": torch.zeros(0, 3)}, "offsets of shape"),
        ({"offsets": torch.zeros(5, 3, device="meta")}, "offsets on meta, image on cpu"),
        ({"grid": None}, "neither a grid nor points"),
        ({"points": torch.zeros(2, 6, 3)}, "both a grid and points"),
        ({"grid": None, "points": torch.zeros(1, 6, 3)}, r"expected: \(2, S, 3\)"),
        ({"grid": (2, 2)}, "3 positive whole numbers"),
        ({"grid": (2, 0, 2)}, "3 positive whole numbers"),
        ({"grid": 5}, "3 positive whole numbers"),
        ({"grid": (2.5, 2, 2)}, "3 positive whole numbers"),
        ({"grid": "abc"}, "3 positive whole numbers"),
        ({"grid": SampleGrid((2.0, 2.0, 2.0))}, "3 positive whole numbers"),
        ({"image": np.zeros((1, 1, 4, 4, 4))}, "image of type ndarray; expected: a torch tensor"),
        ({"offsets": OFFSETS.double()}, "offsets of type torch.float64 with an image of type torch.float32"),
        ({"grid": None, "points": torch.zeros(2, 6, 3).half()}, "points of type torch.float16 with"),
        ({"backend": "fast"}, "no sampling backend 'fast'; expected: auto, reference"),
        ({"backend": "cpu", "image": IMAGE.double()}, "backend 'cpu' cannot run: float64 needs the reference"),
        (
            {"backend": "cpu", "image": IMAGE.to("meta"), "offsets": OFFSETS.to("meta")},
            "backend 'cpu' cannot run: the image is on meta",
        ),
        (
            {"backend": "cpu", "grid": None, "points": torch.zeros(2, 6, 3, requires_grad=True)},
            "backend 'cpu' cannot run: only the reference has gradients of points and offset_transforms",
        ),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    call = {"image": IMAGE, "offsets": OFFSETS, "grid": (2, 2, 2), **arguments}
    with pytest.raises(UsageError, match=message):
        sparse_sample(**call)


@pytest.mark.parametrize(("shape", "groups"), [((4, 14), 1), ((4, 15), 2), ((4, 5), 3), ((15,), 1), ((4, 15), 0)])
def test_wrong_weight(shape: tuple[int, ...], groups: int) -> None:
    with pytest.raises(UsageError, match=r"weight of shape .* 3 channels and 5 offsets"):
        sparse_conv(IMAGE, OFFSETS, torch.zeros(shape), grid=(2, 2, 2), groups=groups)


def test_weight_of_another_type() -> None:
    with pytest.raises(UsageError, match="with an image of type torch"):
        sparse_conv(IMAGE, OFFSETS, torch.zeros(4, 15).bfloat16(), grid=(2, 2, 2))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("corners", [False, True])
def test_slab_is_part_of_the_grid(dims: int, corners: bool) -> None:
    image, offsets, shape = _random(1, 2, *SHAPES[dims]), _offsets(dims, False), (5, 3, 2)[:dims]
    whole = sparse_sample(image, offsets, grid=SampleGrid(shape, corners)).unflatten(3, shape)
    slab = SampleGrid(shape, corners, start=1, stop=3)
    assert slab.output_shape == (2, *shape[1:])
    found = sparse_sample(image, offsets, grid=slab).unflatten(3, slab.output_shape)
    torch.testing.assert_close(found, whole[:, :, :, 1:3], rtol=0, atol=0)
