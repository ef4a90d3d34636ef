"""Coarse-to-fine evaluation: which points are evaluated, in which order, and that the result is the dense one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox import create_model
from farvox.bundle import Inference
from farvox.errors import ResourceError, UsageError
from farvox.geometry import Grid
from farvox.prediction import Predictor, Samples, parse_point_stride
from farvox.prediction.coarse_to_fine import block_sizes, coarse_to_fine_inference
from farvox.prediction.memory import MemoryRequest, plan_coarse_to_fine, resident_bytes
from farvox.types import Shape
from tests.geometry.test_steps import ORDERS, oblique
from tests.prediction.networks import PointSteps, identity_bundle, point_network
from tests.prediction.test_points import GRIDS, SHAPE, bundle, noise

sizes = st.integers(1, 21)
LEVELS = [[(4, 4, 4), (2, 2, 2), (1, 1, 1)], [(4, 4, 1), (2, 2, 1), (1, 1, 1)], [(2, 1, 4), (2, 1, 2), (1, 1, 1)]]


def everywhere(evaluate: Callable[[torch.Tensor], torch.Tensor], shape: Shape) -> torch.Tensor:
    voxels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in shape))
    return evaluate(voxels).unflatten(1, shape)


@settings(deadline=None, max_examples=60)
@given(st.tuples(sizes, sizes, sizes), st.sampled_from(LEVELS), st.integers(1, 40))
def test_at_a_confidence_above_one_every_voxel_is_evaluated(shape: Shape, levels: list[Shape], planes: int) -> None:
    def evaluate(voxels: torch.Tensor) -> torch.Tensor:
        first = torch.sigmoid(voxels @ torch.tensor([0.3, -0.2, 0.1]))
        return torch.stack((first, 1 - first))

    samples = Samples()
    predicted = torch.cat(list(coarse_to_fine_inference(evaluate, shape, levels, planes, 2.0, 2.0, samples)), -1)
    torch.testing.assert_close(predicted, everywhere(evaluate, shape), rtol=0, atol=1e-6)
    blocks = [np.prod([-(-n // s) for n, s in zip(shape, size, strict=True)]) for size in levels]
    assert samples.n_evaluated == sum(blocks)
    assert samples.n_voxels == np.prod(shape)


@settings(deadline=None, max_examples=60)
@given(st.tuples(sizes, sizes, sizes), st.sampled_from(LEVELS), st.integers(1, 40), st.floats(0, 1))
def test_the_number_of_planes_per_part_changes_nothing(
    shape: Shape, levels: list[Shape], planes: int, confidence: float
) -> None:
    table = torch.rand(3, *(n + 1 for n in shape), generator=torch.Generator().manual_seed(0)).softmax(0)

    def evaluate(voxels: torch.Tensor) -> torch.Tensor:
        i, j, k = voxels.ceil().long().T
        return table[:, i, j, k]

    some, all_at_once = (Samples(), Samples())
    parts = list(coarse_to_fine_inference(evaluate, shape, levels, planes, confidence, confidence / 2, some))
    whole = list(coarse_to_fine_inference(evaluate, shape, levels, 1000, confidence, confidence / 2, all_at_once))
    assert len(whole) == 1
    torch.testing.assert_close(torch.cat(parts, -1), whole[0], rtol=0, atol=1e-6)
    assert some == all_at_once


def test_parts_are_returned_when_they_are_complete() -> None:
    depths = []

    def evaluate(voxels: torch.Tensor) -> torch.Tensor:
        depths.append(float(voxels[:, 2].max()))
        return torch.ones(1, len(voxels))

    parts = coarse_to_fine_inference(evaluate, (8, 8, 400), LEVELS[0], 16, 2.0, 2.0)
    assert next(parts).shape == (1, 8, 8, 16)
    assert depths[0] == 397.5  # the largest blocks
    assert max(depths[1:]) < 16 * 3  # a margin on each level, no more


def test_a_ball_is_found_to_the_voxel_with_a_fraction_of_the_points() -> None:
    shape, centre = (48, 40, 44), torch.tensor([22.3, 19.1, 20.7])

    def evaluate(voxels: torch.Tensor) -> torch.Tensor:
        inside = ((voxels - centre).norm(dim=1) < 11).float()
        return torch.stack((1 - inside, inside))

    samples = Samples()
    predicted = torch.cat(list(coarse_to_fine_inference(evaluate, shape, LEVELS[0], samples=samples)), -1)
    truth = everywhere(evaluate, shape)
    torch.testing.assert_close(predicted.argmax(0), truth.argmax(0), rtol=0, atol=0)
    assert samples.fraction < 0.15


def test_a_vessel_thinner_than_a_block_is_followed() -> None:
    shape = (48, 48, 64)

    def evaluate(voxels: torch.Tensor) -> torch.Tensor:
        # Oblique, three voxels wide, and as sharp as a trained network draws it.
        axis = torch.stack((16 + voxels[:, 2] / 6, 30 - voxels[:, 2] / 9), 1)
        inside = torch.sigmoid(6 * (1.5 - (voxels[:, :2] - axis).norm(dim=1)))
        return torch.stack((1 - inside, inside))

    samples = Samples()
    predicted = torch.cat(list(coarse_to_fine_inference(evaluate, shape, LEVELS[0], samples=samples)), -1).argmax(0)
    truth = everywhere(evaluate, shape).argmax(0)
    assert 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()) > 0.97
    assert samples.fraction < 0.08


def test_constant_probabilities_are_evaluated_once_a_block() -> None:
    samples = Samples()
    parts = coarse_to_fine_inference(
        lambda p: torch.full((2, len(p)), 0.5), (16, 16, 16), LEVELS[0], 32, 0.4, 0.4, samples
    )
    assert (torch.cat(list(parts), -1) == 0.5).all()
    assert samples.fraction == 1 / 64


def test_blocks_are_cubes_in_mm_as_nearly_as_halving_allows() -> None:
    cubes = [(4, 4, 4), (2, 2, 2), (1, 1, 1)]
    assert block_sizes((1, 1, 1)) == block_sizes((4, 4, 5.5)) == cubes
    assert block_sizes((2.7, 2.7, 7.7)) == [(4, 4, 2), (2, 2, 2), (1, 1, 1)]
    assert block_sizes((0.5, 5, 0.5)) == [(4, 1, 4), (2, 1, 2), (1, 1, 1)]


@pytest.mark.parametrize("name", GRIDS)
def test_an_untrained_network_is_uncertain_and_evaluated_nearly_everywhere(name: str) -> None:
    scan, affine = noise(*SHAPE), GRIDS[name]
    made = [bundle(affine, seed=seed) for seed in (0, 1)]
    predictor = Predictor(made, "cpu", point_stride="adaptive")
    agreement = predictor.segment(scan, affine) == Predictor(made, "cpu").segment(scan, affine)
    assert agreement.mean() > 0.97
    assert predictor.samples is not None
    assert predictor.samples.n_voxels == 2 * scan.size
    assert predictor.samples.fraction > 0.95


@pytest.mark.parametrize(("order", "signs"), ORDERS[::7])
def test_boxes_are_found_on_any_grid_with_few_samples(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    classes = np.zeros((50, 44, 48), np.float32)
    classes[9:21, 8:30, 10:40], classes[21:42, 8:17, 10:40], classes[25:44, 21:38, 12:30] = 1, 1, 2
    affine = oblique(order, signs)
    spacing = np.zeros(3)
    spacing[list(order)] = (0.7, 1.9, 3.3)
    made = identity_bundle({200: "a", 500: "b"}, tuple(spacing), None, network=PointSteps(3))
    predictor = Predictor([made], "cpu", point_stride="adaptive")
    predicted = predictor.segment(classes, affine)
    assert (predicted == np.array([0, 200, 500])[classes.astype(int)]).mean() > 0.999
    assert predictor.samples is not None
    assert predictor.samples.fraction < 0.4


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_stride_at_prediction_is_a_stride_built_in(stride: int) -> None:
    scan, affine = noise(*SHAPE), GRIDS["oblique"]
    made = bundle(affine, stride=2)
    network = create_model("obelisk-dense", classes=4, offsets=24, smoothing=[3], stride=stride)
    network.load_state_dict(made.network.state_dict())
    strided = Predictor([made], "cpu", point_stride=stride)
    built = Predictor([replace(made, network=network)], "cpu")
    np.testing.assert_array_equal(strided.segment(scan, affine), built.segment(scan, affine))
    assert strided.network.config.stride == stride
    points = Grid(SHAPE, affine).voxel_to_mm(np.array([[3, 4, 5]]))
    np.testing.assert_allclose(
        strided.predict_points(scan, points, affine).probabilities,
        built.predict_points(scan, points, affine).probabilities,
        atol=1e-6,
    )


def test_choosing_a_stride_leaves_the_network_alone() -> None:
    network = point_network(3, stride=4)
    other = network.with_stride(1)
    assert network.config.stride == 4
    assert all(a is b for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert other(torch.zeros(1, 1, 5, 6, 7)).shape == (1, 3, 5, 6, 7)


def test_strides_that_a_network_does_not_support_are_refused() -> None:
    point, dense = bundle(np.eye(4)), identity_bundle({200: "a", 500: "b", 600: "c"}, (1, 1, 1))
    for stride in (1, 2, "adaptive"):
        with pytest.raises(UsageError, match=r"does not support points.*use the point stride 'native'"):
            Predictor([point, dense], "cpu", point_stride=stride)
    patches = replace(point, manifest=point.manifest.model_copy(update={"inference": Inference(patch_size=(8, 8, 8))}))
    with pytest.raises(UsageError, match="trained on whole scans"):
        Predictor([patches], "cpu", point_stride="adaptive")
    with pytest.raises(UsageError, match="expected: native, adaptive, 1, 2, 4"):
        parse_point_stride("3")
    assert [parse_point_stride(text) for text in ("native", "2", "adaptive")] == ["native", 2, "adaptive"]


def test_memory_of_refining_is_planned() -> None:
    scan = (512, 512, 400)

    def planes(limit: int) -> int:
        return plan_coarse_to_fine(MemoryRequest(resident_bytes() + limit, 1, 9, 1, (200, 200, 200), scan)).window[2]

    assert planes(4 * 2**30) == 32
    assert planes(900 * 2**20) == 16
    with pytest.raises(ResourceError, match="does not fit into memory"):
        planes(300 * 2**20)


def test_the_evaluated_fraction_is_in_the_result(tmp_path: Path) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(noise(*SHAPE), np.eye(4)), tmp_path / "scan.nii.gz")
    for stride, adaptive in (("adaptive", True), ("native", False)):
        predictor = Predictor([bundle(np.eye(4))], "cpu", point_stride=stride)
        (result,) = predictor.segment_files(tmp_path / "scan.nii.gz", tmp_path / "out")
        assert result.error is None
        assert (result.n_evaluated_fraction is not None) == adaptive
