"""The CPU backend against the reference in float64: values and every gradient, whatever the input looks like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farvox.errors import UsageError
from farvox.ops import SampleGrid, sparse_conv, sparse_sample
from farvox.ops.sparse_sample import _cpu_grid, _cpu_plan
from farvox.ops.sparse_sample.library import sparse_conv_op
from tests.ops.sampling import SamplePoints, conv_case, random_tensor, run_conv

POINTS = random_tensor(2, 20, 3)


def _compare(tensors: tuple[torch.Tensor, ...], places: SamplePoints, groups: int = 2) -> None:
    expected = run_conv("reference", torch.float64, tensors, places, groups)
    for found, wanted in zip(run_conv("cpu", torch.float32, tensors, places, groups), expected, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5 * max(1.0, wanted.abs().max().item()))


GRIDS = [
    ((12, 8, 16), (3, 4, 4)),  # whole steps
    ((9, 15, 7), (9, 5, 7)),  # whole and equal steps, odd sizes
    ((11, 9, 13), (5, 9, 13)),  # a broken step along the first axis alone
    ((11, 9, 13), (4, 7, 5)),  # broken steps
    ((3, 4, 5), (7, 6, 9)),  # more outputs than voxels
    ((13, 13, 13), (4, 5, 7)),  # whole steps once corners are aligned
    ((1, 2, 3), (1, 1, 1)),
    ((10, 14), (5, 7)),
    ((11, 9), (4, 6)),
]


@pytest.mark.parametrize(("shape", "grid"), GRIDS)
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_grid(shape: tuple[int, ...], grid: tuple[int, ...], corners: bool, pairs: bool, channels: int) -> None:
    _compare(conv_case(shape, channels, pairs), {"grid": SampleGrid(grid, corners)})


@pytest.mark.parametrize("shape", [(7, 9, 5), (8, 11)])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("channels", "count"), [(1, 23), (3, 23), (3, 150)])  # 150 points × 6: channels innermost
def test_points(shape: tuple[int, ...], pairs: bool, channels: int, count: int) -> None:
    _compare(conv_case(shape, channels, pairs), {"points": 0.7 * random_tensor(2, count, len(shape), seed=4)})


@pytest.mark.parametrize("shape", [(7, 9, 5), (8, 11)])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("channels", "count"), [(1, 23), (3, 150)])
def test_points_whose_offsets_are_turned(shape: tuple[int, ...], pairs: bool, channels: int, count: int) -> None:
    dims = len(shape)
    offset_transforms = torch.eye(dims) + 0.5 * random_tensor(2, count, dims, dims, seed=5)
    _compare(
        conv_case(shape, channels, pairs),
        {"points": 0.8 * random_tensor(2, count, dims, seed=4), "offset_transforms": offset_transforms},
    )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_matrix_for_all_points_is_another_kernel(backend: str) -> None:
    image, offsets, weight = conv_case((7, 9, 5), 2, True)
    matrix = torch.eye(3) + 0.3 * random_tensor(3, 3, seed=6)
    found = sparse_conv(
        image, offsets, weight, points=POINTS, offset_transforms=matrix.expand(2, 20, 3, 3), groups=2, backend=backend
    )
    wanted = sparse_conv(image, offsets @ matrix.T, weight, points=POINTS, groups=2, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_gradients_of_matrices_come_from_the_reference() -> None:
    image, offsets, weight = conv_case((7, 9, 5), 1, False)
    offset_transforms = torch.eye(3).repeat(2, 20, 1, 1).requires_grad_()
    sparse_conv(image, offsets, weight, points=POINTS, offset_transforms=offset_transforms, groups=2).sum().backward()
    assert offset_transforms.grad is not None
    assert offset_transforms.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="gradients of points and offset_transforms"):
        sparse_conv(image, offsets, weight, points=POINTS, offset_transforms=offset_transforms, groups=2, backend="cpu")


def test_matrices_that_do_not_fit() -> None:
    image, offsets, weight = conv_case((7, 9, 5), 1, False)
    with pytest.raises(UsageError, match="offset_transforms with a grid"):
        sparse_sample(image, offsets, grid=(2, 2, 2), offset_transforms=torch.eye(3).expand(2, 8, 3, 3))
    with pytest.raises(UsageError, match="one per point"):
        sparse_conv(image, offsets, weight, points=POINTS, offset_transforms=torch.eye(3), groups=2)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("places", [{"grid": (3, 4, 4)}, {"points": random_tensor(2, 40, 3)}], ids=["grid", "points"])
def test_groups_that_cut_through_channels(groups: int, places: SamplePoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_grid, "_MIN_ROWS", 6)  # one channel at a time
    _compare(conv_case((12, 8, 8), 3, False, outputs=6, groups=groups), places, groups)


@pytest.mark.parametrize("grid", [(5, 6, 8), (4, 6, 7)], ids=["runs", "rows"])
@pytest.mark.parametrize("batch", [1, 3])
def test_many_tiles_and_threads(grid: tuple[int, ...], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_grid, "_TILE_VALUES", 1)
    monkeypatch.setattr(_cpu_grid, "_MIN_POSITIONS", 1)
    monkeypatch.setattr(_cpu_grid, "_MIN_ROWS", 1)
    monkeypatch.setattr(_cpu_plan, "_CHUNK", 4)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            _compare(conv_case((10, 12, 16), 2, True, batch), {"grid": grid})
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_slab_of_a_grid() -> None:
    _compare(conv_case((10, 12, 8), 2, True), {"grid": SampleGrid((5, 6, 4), start=1, stop=4)})
    _compare(conv_case((10, 12), 2, True), {"grid": SampleGrid((5, 5), start=2)})


@pytest.mark.parametrize("places", [{"grid": (3, 4, 2)}, {"grid": (5, 4, 3)}, {"points": random_tensor(2, 20, 3)}])
def test_only_the_wanted_gradients(places: SamplePoints) -> None:
    tensors = conv_case((6, 8, 4), 2, False)
    every = run_conv("cpu", torch.float32, tensors, places, 2)[1:]
    for wanted in range(3):
        leaves = [tensor.detach().clone().requires_grad_(n == wanted) for n, tensor in enumerate(tensors)]
        out = sparse_conv(*leaves, **places, groups=2, backend="cpu")
        out.backward(random_tensor(*out.shape, seed=3))
        torch.testing.assert_close(leaves[wanted].grad, every[wanted])
        assert all(leaf.grad is None for n, leaf in enumerate(leaves) if n != wanted)


@pytest.mark.parametrize("places", [{"grid": (3, 4, 2)}, {"grid": (5, 4, 3)}, {"points": random_tensor(2, 20, 3)}])
@pytest.mark.parametrize("pairs", [False, True])
def test_samples_and_their_gradients(places: SamplePoints, pairs: bool) -> None:
    found = {}
    for backend in ("reference", "cpu"):
        image, offsets, _ = (tensor.requires_grad_() for tensor in conv_case((6, 8, 4), 3, pairs))
        out = sparse_sample(image, offsets, **places, backend=backend)
        out.backward(random_tensor(*out.shape, seed=3))
        found[backend] = [out.detach(), image.grad, offsets.grad]
    torch.testing.assert_close(found["cpu"], found["reference"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("places", [{"grid": (3, 4, 2)}, {"grid": (5, 4, 3)}, {"points": random_tensor(2, 20, 3)}])
def test_strides_do_not_matter(places: SamplePoints) -> None:
    image, offsets, weight = conv_case((6, 8, 4), 3, True)
    expected = run_conv("cpu", torch.float32, (image, offsets, weight), places, 2)
    image = image.to(memory_format=torch.channels_last_3d)
    offsets = offsets.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    weight = weight.t().contiguous().t()
    if "points" in places:
        places = {"points": places["points"].movedim(2, 0).contiguous().movedim(0, 2)}
    torch.testing.assert_close(run_conv("cpu", torch.float32, (image, offsets, weight), places, 2), expected)


@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_to_answer(batch: int) -> None:
    for backend in ("reference", "cpu"):
        image, offsets, weight = (tensor.requires_grad_() for tensor in conv_case((6, 8, 4), 3, True, batch))
        places = {"grid": (3, 4, 2)} if batch == 0 else {"points": torch.zeros(batch, 0, 3)}
        out = sparse_conv(image, offsets, weight, **places, groups=2, backend=backend)
        assert out.shape == (batch, 4, 24 if batch == 0 else 0)
        out.sum().backward()
        assert not any(tensor.grad.any() for tensor in (image, offsets, weight))


@pytest.mark.parametrize("places", [{"grid": (3, 4, 2)}, {"grid": (5, 4, 3)}, {"points": random_tensor(2, 20, 3)}])
def test_bfloat16_is_computed_in_float32(places: SamplePoints) -> None:
    tensors = tuple(tensor.bfloat16() for tensor in conv_case((6, 8, 4), 3, False))
    places = {key: value.bfloat16() if key == "points" else value for key, value in places.items()}
    found = run_conv("cpu", torch.bfloat16, tensors, places, 2)
    places = {key: value.float() if key == "points" else value for key, value in places.items()}
    out = sparse_conv(*(tensor.float() for tensor in tensors), **places, groups=2)
    torch.testing.assert_close(found[0], out.bfloat16())
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}


def test_every_value_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        for places in ({"grid": (3, 4, 2)}, {"grid": (5, 4, 3)}, {"points": random_tensor(2, 20, 3)}):
            _compare(conv_case((6, 8, 4), 2, True), places)
            image, offsets, _ = conv_case((6, 8, 4), 2, True)
            assert torch.isfinite(sparse_sample(image, offsets, **places, backend="cpu")).all()
    finally:
        torch.use_deterministic_algorithms(False)


ODD = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e9, 3.0, -1.0, 1.0, 0.0, -0.0, 1e-38])
NUMBER = ODD | st.floats(-1.5, 1.5, width=32)
# Two huge numbers of opposite sign may cancel, and what is left of them is rounding.
PLACE = NUMBER.filter(lambda x: not 1e6 < abs(x) < float("inf"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=5),
    st.lists(st.tuples(PLACE, PLACE, PLACE), min_size=1, max_size=5),
    st.sampled_from([(2, 3, 2), (4, 1, 5), (3, 2, 4)]),
    st.booleans(),
)
@example([(float("nan"), 0.0, 0.0)], [(0.0, 0.0, 0.0)], (2, 3, 2), True)
def test_anything_may_stand_in_offsets_and_points(
    offsets: list[tuple[float, ...]], points: list[tuple[float, ...]], grid: tuple[int, int, int], corners: bool
) -> None:
    image, table = random_tensor(1, 2, 4, 3, 6), torch.tensor(offsets)
    for places in ({"points": torch.tensor(points)[None]}, {"grid": SampleGrid(grid, corners)}):
        found = sparse_sample(image, table, **places, backend="cpu")
        torch.testing.assert_close(
            found, sparse_sample(image, table, **places, backend="reference"), rtol=1e-4, atol=1e-4
        )
        strange = ~torch.isfinite(table).all(1)
        assert not found[:, :, strange].any()
        leaf = table.clone().requires_grad_()
        sparse_sample(image, leaf, **places, backend="cpu").sum().backward()
        assert not leaf.grad[strange].any()


@pytest.mark.parametrize("size", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_just_inside_the_far_side(size: int, axis: int) -> None:
    """The largest float32 below the side: one more and it is rounded past the last voxel."""
    shape = [3, 3, 3]
    shape[axis] = size
    point = torch.zeros(1, 1, 3)
    point[..., axis] = (2 * torch.nextafter(torch.tensor(float(size)), torch.tensor(0.0)) + 1) / size - 1
    leaves = {}
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        image = torch.ones(1, 2, *shape, dtype=dtype, requires_grad=True)
        offsets = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
        found = sparse_sample(image, offsets, points=point.to(dtype), backend=backend)
        found.sum().backward()
        leaves[backend] = [found.detach(), image.grad]
    for a, b in zip(leaves["cpu"], leaves["reference"], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5)


def test_no_read_leaves_its_array(tmp_path: Path) -> None:
    """The fuzz above with every index checked, by kernels that are compiled for it."""
    code = """
import torch
from farvox.errors import UsageError
from farvox.ops import SampleGrid, sparse_conv
torch.manual_seed(0)
for trial in range(60):
    shape = torch.randint(1, 9, (3,)).tolist()
    grid = SampleGrid(tuple(torch.randint(1, 9, (3,)).tolist()), bool(trial % 2))
    offsets = torch.randn(5, 2, 3) * 10.0 ** float(torch.randint(-2, 4, (1,)))
    offsets[trial % 5, 0, trial % 3] = (float("nan"), float("inf"), 1e30)[trial % 3]
    edge = (2 * torch.nextafter(torch.tensor(shape, dtype=torch.float32), torch.zeros(3)) + 1) / torch.tensor(shape) - 1
    steps = (1, 1, (1, 2, 4)[trial % 3])
    rows = torch.cartesian_prod(*(torch.arange(-1, size + 1, step) for size, step in zip(shape, steps)))
    voxels = ((2 * rows + 1) / torch.tensor(shape) - 1)[None]
    spread = torch.randn(1, 7, 3) * 3
    for places in ({"grid": grid}, {"points": spread}, {"points": edge[None, None]}, {"points": voxels}):
        image = torch.randn(1, 2, *shape, requires_grad=True)
        offsets = torch.zeros_like(offsets) if trial % 4 == 0 else offsets
        sparse_conv(image, offsets.requires_grad_(), torch.randn(3, 10), **places, backend="cpu").sum().backward()
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)


def test_the_callers_default_type_does_not_matter() -> None:
    case = conv_case((12, 8, 16), 2, True)
    expected = [run_conv("cpu", torch.float32, case, places, 2) for places in ({"grid": (3, 4, 4)}, {"points": POINTS})]
    torch.set_default_dtype(torch.float64)
    try:
        found = [
            run_conv("cpu", torch.float32, case, places, 2) for places in ({"grid": (3, 4, 4)}, {"points": POINTS})
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)


def test_works_in_inference_mode() -> None:
    case = conv_case((12, 8, 16), 2, True)
    for places in ({"grid": (3, 4, 4)}, {"points": random_tensor(2, 20, 3)}):
        with torch.inference_mode():
            found = sparse_conv(*case, **places, groups=2, backend="cpu")
        torch.testing.assert_close(found, sparse_conv(*case, **places, groups=2, backend="cpu"))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("on_grid", [False, True])
def test_operator_keeps_torchs_rules(weighed: bool, on_grid: bool) -> None:
    image, offsets, weight = (tensor.requires_grad_() for tensor in conv_case((6, 8, 4), 2, True))
    points, offset_transforms = (None, None) if on_grid else (random_tensor(2, 9, 3), random_tensor(2, 9, 3, 3))
    grid, stop = ([3, 4, 2], 3) if on_grid else ([], 0)
    where = (points, offset_transforms, grid, False, 0, stop)
    arguments = (image, offsets, weight if weighed else None, *where, 2 if weighed else 1, "cpu")
    torch.library.opcheck(sparse_conv_op, arguments)


class _Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _, offsets, weight = conv_case((6, 8, 4), 2, True)
        self.offsets, self.weight = torch.nn.Parameter(offsets), torch.nn.Parameter(weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        i, j, k = image.shape[2:]
        return sparse_conv(image, self.offsets, self.weight, grid=(i // 2, j // 2, k), groups=2).relu()


def test_compiles_whole_and_exports() -> None:
    layer, image = _Layer(), random_tensor(2, 2, 6, 8, 4)
    expected = layer(image)
    expected.sum().backward()
    grad, layer.offsets.grad = layer.offsets.grad, None
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = compiled(image)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.offsets.grad, grad)
    sizes = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO, 4: torch.export.Dim.AUTO}
    exported = torch.export.export(layer, (image,), dynamic_shapes=(sizes,))
    torch.testing.assert_close(exported.module()(image), expected)
    larger = random_tensor(2, 2, 10, 12, 6)
    torch.testing.assert_close(exported.module()(larger), layer(larger))
