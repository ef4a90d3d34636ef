"""The Triton kernels against the reference in float64: in Triton's interpreter everywhere, on a GPU where there is one.

Whether kernels are interpreted is settled when triton is first imported, and another test may have imported it already.
So `test_in_the_interpreter` runs this file once more in a process of its own, with TRITON_INTERPRET=1; there the cases
run on CPU tensors. In the outer process they run on the GPU, or are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from farvox.errors import UsageError
from farvox.ops.sparse_sample import reference
from farvox.ops.sparse_sample import triton as kernels
from farvox.ops.sparse_sample.api import SampleGrid

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
computes = pytest.mark.skipif(not INTERPRETED and not GPU, reason="no GPU; test_in_the_interpreter runs it on the CPU")
SIZES = {2: (7, 6), 3: (5, 7, 6)}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Largest error over the largest value."""


@pytest.fixture(autouse=True)
def _memory_full_of_nan() -> Iterator[None]:
    """Every tensor made with `empty` holds NaN: an element that a kernel leaves out shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def _random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def _inputs(
    dims: int = 3,
    pairs: bool = False,
    groups: int = 1,
    *,
    batch: int = 2,
    channels: int = 2,
    count: int = 6,
    outputs: int = 4,
    places: int = 35,
    dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    """Image, offsets (about a third of the reads outside), weight and free positions."""
    image = _random(batch, channels, *SIZES[dims], seed=0, dtype=dtype)
    offsets = 0.5 * _random(*((count, 2, dims) if pairs else (count, dims)), seed=1)
    weight = _random(outputs, channels * count // groups, seed=2, dtype=dtype)
    return [image, offsets, weight, 0.6 * _random(batch, places, dims, seed=3)]


def _check(found: torch.Tensor | None, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found is not None
    assert found.dtype == dtype
    assert found.shape == expected.shape
    error = (found.double() - expected).abs().max() if expected.numel() else torch.zeros(())
    assert error <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)


def _check_conv(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    positions: torch.Tensor,
    corners: bool = False,
    groups: int = 1,
    *,
    grad: torch.Tensor | None = None,
    plain: Callable[[torch.Tensor], torch.Tensor] = lambda coordinates: coordinates,
) -> None:
    """Forward and all gradients; `plain` gives the reference coordinates of the same meaning that it can take."""
    inputs = [image.double(), plain(offsets).double(), weight.double()]
    for tensor in inputs:
        tensor.requires_grad_()
    expected = reference.conv(*inputs, plain(positions).double(), corners, groups)
    if grad is None:
        grad = _random(*expected.shape, seed=4, dtype=image.dtype)
    found = kernels.conv(image, offsets, weight, positions, corners, groups)
    _check(found, expected.detach(), image.dtype)
    found_grads = kernels.conv_backward(grad, image, offsets, weight, positions, corners, groups, (True, True, True))
    wanted_grads = torch.autograd.grad(expected, inputs, grad.double())
    for found, like, wanted in zip(found_grads, (image, offsets, weight), wanted_grads, strict=True):
        assert found is not None
        assert found.dtype == like.dtype
        # The offsets' gradient is float32 always, but its factors are only as good as the image's type.
        _check(found.to(image.dtype), wanted, image.dtype)


def _check_sample(image: torch.Tensor, offsets: torch.Tensor, positions: torch.Tensor, corners: bool = False) -> None:
    inputs = [image.double().requires_grad_(), offsets.double().requires_grad_()]
    expected = reference.sample(*inputs, positions.double(), corners)
    grad = _random(*expected.shape, seed=4, dtype=image.dtype)
    _check(kernels.sample(image, offsets, positions, corners), expected.detach(), image.dtype)
    image_grad, offset_grad = kernels.sample_backward(grad, image, offsets, positions, corners, (True, True))
    wanted = torch.autograd.grad(expected, inputs, grad.double())
    _check(image_grad, wanted[0], image.dtype)
    _check(offset_grad, wanted[1], torch.float32)


@pytest.mark.long
@pytest.mark.skipif(INTERPRETED, reason="this is the inner run")
def test_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@computes
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_points(dims: int, pairs: bool, groups: int) -> None:
    # With 4 groups a run of rows starts in the middle of a channel.
    _check_conv(*_inputs(dims, pairs, groups), groups=groups)


@computes
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("corners", [False, True])
def test_grid(dims: int, pairs: bool, corners: bool) -> None:
    image, offsets, weight, _ = _inputs(dims, pairs)
    positions = SampleGrid((3, 4, 2)[:dims], corners).positions(offsets)
    _check_conv(image, offsets, weight, positions, corners)
    _check_sample(image, offsets, positions, corners)


@computes
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
def test_plain_sampling_at_points(dims: int, pairs: bool) -> None:
    image, offsets, _, positions = _inputs(dims, pairs, channels=3)
    _check_sample(image, offsets, positions)


@computes
def test_a_value_computed_by_hand() -> None:
    # Voxels 1 2 4 along the last axis; a quarter of the way from the second to the third. Half pixel: index 1.25 of 3
    # voxels is (1.25 · 2 + 1) / 3 - 1 = 1/6.
    image = torch.tensor([1.0, 2.0, 4.0], device=DEVICE).reshape(1, 1, 1, 1, 3)
    offsets = torch.tensor([[0.0, 0.0, 1 / 6]], device=DEVICE)
    positions = torch.zeros(1, 1, 3, device=DEVICE)
    assert kernels.sample(image, offsets, positions, False).item() == pytest.approx(2.5)
    grads = kernels.sample_backward(
        torch.ones(1, 1, 1, 1, device=DEVICE), image, offsets, positions, False, (True,) * 2
    )
    assert grads[0] is not None
    assert grads[0].flatten().tolist() == pytest.approx([0.0, 0.75, 0.25])
    # 2 per voxel, 1.5 voxels per unit. The other axes lie on the centre of their only voxel: zero beyond it.
    assert grads[1] is not None
    assert grads[1].flatten().tolist() == pytest.approx([-1.25, -1.25, 3.0])


@computes
@pytest.mark.parametrize("pairs", [False, True])
def test_sizes_beyond_a_block(pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # 39 rows, 17 outputs, 40 positions: two blocks of each; runs of four tiles, the end of the batch in the second.
    monkeypatch.setattr(kernels, "_MAX_OUTPUTS", 16)
    monkeypatch.setattr(kernels, "_BACKWARD_OUTPUTS", 16)
    monkeypatch.setattr(kernels, "_PROGRAMS", 6)
    _check_conv(*_inputs(3, pairs, channels=3, count=13, outputs=17, places=40, batch=3))


@computes
@pytest.mark.parametrize("dims", [2, 3])
def test_sizes_of_one(dims: int) -> None:
    image, offsets, weight, positions = _inputs(dims, batch=1, channels=1, count=1, outputs=1, places=1)
    _check_conv(image, offsets, weight, positions)
    _check_conv(image[(..., *(slice(0, 1),) * dims)], 0.1 * offsets, weight, 0.1 * positions)


@computes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pairs", [False, True])
def test_half_precision(dtype: torch.dtype, pairs: bool) -> None:
    image, offsets, weight, positions = _inputs(3, pairs, 2, dtype=dtype, batch=1, places=9)
    _check_conv(image, offsets, weight, positions, groups=2)
    _check_sample(image, offsets, positions)


@computes
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pairs", [False, True])
def test_coordinates_that_are_nowhere(dims: int, pairs: bool) -> None:
    image, offsets, weight, positions = _inputs(dims, pairs, count=9)
    strange = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3.4e38, 2e9, -5.0]
    for row, value in enumerate(strange):
        offsets[row].view(-1)[row % dims] = value
        positions[0, row, -1] = value if abs(value) != 1e30 else 7.0  # 1e30 and -1e30 would meet in the middle
    _check_conv(
        image, offsets, weight, positions, plain=lambda x: torch.where(x.abs() < 4, x, torch.full_like(x, 1000.0))
    )
    alone = kernels.conv_backward(
        torch.ones(2, 4, 35, device=DEVICE), image, offsets, weight, positions, False, 1, (True, True, True)
    )[1]
    assert alone is not None
    nowhere = alone[:8] if not pairs else alone[:8, 0]
    assert (nowhere == 0).all()
    assert (alone[8] != 0).all()


@computes
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("places", [0, 3])
def test_nothing_to_do(batch: int, places: int) -> None:
    image, offsets, weight, positions = _inputs(batch=batch, places=places)
    if batch and places:
        pytest.skip("something to do")
    assert kernels.sample(image, offsets, positions, False).shape == (batch, 2, 6, places)
    assert kernels.conv(image, offsets, weight, positions, False, 1).shape == (batch, 4, places)
    grads = kernels.conv_backward(
        torch.ones(batch, 4, places, device=DEVICE), image, offsets, weight, positions, False, 1, (True,) * 3
    )
    more = kernels.sample_backward(
        torch.ones(batch, 2, 6, places, device=DEVICE), image, offsets, positions, False, (True,) * 2
    )
    for grad, like in zip((*grads, *more), (image, offsets, weight, image, offsets), strict=True):
        assert grad is not None
        torch.testing.assert_close(grad, torch.zeros_like(like))


def _within_nan(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a view into a larger tensor of NaN, axes in reversed order."""
    order = tuple(reversed(range(tensor.ndim)))
    room = torch.full([size + 4 for size in tensor.permute(order).shape], float("nan"), device=DEVICE)
    view = room[tuple(slice(2, 2 + size) for size in tensor.permute(order).shape)].permute(order)
    view.copy_(tensor)
    assert not view.is_contiguous()
    return view


@computes
@pytest.mark.parametrize(("dims", "wide"), [(2, False), (3, False), (3, True)])
def test_views_with_nan_around(dims: int, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide:
        monkeypatch.setattr(kernels, "_WIDE", 0)
    inputs = [_within_nan(tensor) for tensor in _inputs(dims, True)]
    inputs[1] = _within_nan(3 * inputs[1])  # most reads outside
    _check_conv(*inputs, grad=_within_nan(_random(2, 4, 35, seed=4)))
    _check_sample(inputs[0], inputs[1], inputs[3])


@computes
def test_expanded_image_and_gradient() -> None:
    # Strides of 0, as `expand` and the gradient of `sum` have them.
    image, offsets, weight, positions = _inputs()
    _check_conv(
        image[:1, :1].expand(2, 2, -1, -1, -1),
        offsets,
        weight,
        positions,
        grad=torch.ones(()).to(image).expand(2, 4, 35),
    )


@computes
@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_only_what_is_needed(needs: tuple[bool, bool, bool]) -> None:
    image, offsets, weight, positions = _inputs(3, True)
    grad = _random(2, 4, 35, seed=4)
    everything = kernels.conv_backward(grad, image, offsets, weight, positions, False, 1, (True, True, True))
    some = kernels.conv_backward(grad, image, offsets, weight, positions, False, 1, needs)
    for needed, found, whole in zip(needs, some, everything, strict=True):
        assert (found is not None) == needed
        if needed:
            torch.testing.assert_close(found, whole)


@pytest.mark.skipif(INTERPRETED, reason="asks about this process without the interpreter")
def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 1, 2, 2)
    assert kernels.unavailable_reason(image) == "the image is on cpu"
    assert kernels.unavailable_reason(image.double()) == "float64 needs the reference"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert kernels.unavailable_reason(image) == "triton is not installed"


@computes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_reason_not_to(dtype: torch.dtype) -> None:
    assert kernels.unavailable_reason(torch.zeros(1, 1, 2, 2, device=DEVICE, dtype=dtype)) is None


def test_tf32_only_where_torch_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    image = torch.zeros(1, 1, 2, 2)
    assert kernels._product(image)["PRECISION"] == "ieee"
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert kernels._product(image)["PRECISION"] == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.skipif(not GPU, reason="no GPU")
def test_determinism_asked_for_is_an_error_for_the_image_alone() -> None:
    image, offsets, weight, positions = _inputs()
    grad = torch.ones(2, 4, 35, device=DEVICE)
    torch.use_deterministic_algorithms(True)
    kernels.conv_backward(grad, image, offsets, weight, positions, False, 1, (False, True, True))
    with pytest.raises(UsageError, match="no fixed order"):
        kernels.conv_backward(grad, image, offsets, weight, positions, False, 1, (True, False, False))


@pytest.mark.skipif(not GPU, reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_size_that_is_measured(dtype: torch.dtype) -> None:
    image = _random(1, 8, 144, 144, 144, seed=0, dtype=dtype)
    offsets = 0.1 * _random(128, 3, seed=1)
    weight = (_random(64, 1024, seed=2) / 32).to(dtype)
    _check_conv(image, offsets, weight, SampleGrid((36, 36, 36)).positions(offsets))
