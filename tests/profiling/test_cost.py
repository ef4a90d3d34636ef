"""Costs counted by hand, and receptive fields that are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox import create_model, list_models
from farvox.blocks import Obelisk
from farvox.errors import FarvoxError
from farvox.models import count_parameters, model_info
from farvox.profiling.cost import (
    activation_bytes,
    measure_receptive_field,
    measure_time_and_memory,
    minimum_bytes,
    multiply_adds,
)


class OneKernel(nn.Module):
    """An OBELISK layer on a grid of half the size, enlarged."""

    def __init__(self, channels: int = 2, pairs: bool = False, groups: int = 1) -> None:
        super().__init__()
        self.kernel = Obelisk(channels, 6, offsets=10, pairs=pairs, groups=groups)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        half = self.kernel(image, [n // 2 for n in image.shape[2:]])
        return F.interpolate(half, size=image.shape[2:], mode="nearest")


@pytest.mark.parametrize("name", list_models())
def test_facts_hold_what_is_counted(name: str) -> None:
    facts = model_info(name)
    i, j, k = facts.reference_size

    def make() -> nn.Module:
        return create_model(name, **facts.reference_arguments)

    found = multiply_adds(make, facts.reference_arguments["in_channels"], facts.reference_size) / (i * j * k)
    assert round(found) == facts.multiply_adds


@pytest.mark.parametrize("name", list_models())
def test_the_smallest_input_is_taken_and_no_smaller(name: str) -> None:
    facts = model_info(name)
    channels, classes = facts.reference_arguments["in_channels"], facts.reference_arguments["classes"]
    with torch.device("meta"):
        network = create_model(name, **facts.reference_arguments).eval()
        assert network(torch.zeros(1, channels, *facts.min_size)).shape == (1, classes, *facts.min_size)
        for axis in (axis for axis in range(3) if facts.min_size[axis] > 1):
            smaller = [n - (a == axis) for a, n in enumerate(facts.min_size)]
            with pytest.raises(FarvoxError):
                network(torch.zeros(1, channels, *smaller))


def test_the_papers_figure_for_the_2d_network() -> None:
    def make() -> nn.Module:
        return create_model("unet2d", in_channels=4, classes=3)

    assert multiply_adds(make, 4, (64, 48, 5)) == 38_640 * 64 * 48 * 5


def test_convolutions_by_hand() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 4, (3, 1, 1), 2, groups=2)
        )

    # 9×8×7 voxels, then 4×4×4: (9 - 3) // 2 + 1, (8 - 1) // 2 + 1, (7 - 1) // 2 + 1
    assert multiply_adds(make, 2, (9, 8, 7)) == 9 * 8 * 7 * 8 * 2 * 27 + 64 * 4 * 4 * 3
    assert count_parameters(make()) == 8 * 2 * 27 + 8 + 16 + 4 * 4 * 3 + 4


@pytest.mark.parametrize(("pairs", "groups"), [(False, 1), (True, 1), (False, 2), (True, 2)])
def test_sparse_sampling_by_hand(pairs: bool, groups: int) -> None:
    outputs, reads = 4 * 5 * 6, 2 * 10 * (2 if pairs else 1)
    found = multiply_adds(lambda: OneKernel(pairs=pairs, groups=groups), 2, (8, 10, 12))
    assert found == outputs * (reads * 8 + 6 * 2 * 10 // groups)


def test_learned_offsets_are_parameters() -> None:
    assert count_parameters(OneKernel(pairs=True)) == 10 * 2 * 3 + 6 * 2 * 10


def test_a_pass_with_gradients_is_estimated_from_its_maps() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 3, 1), nn.ReLU(), nn.Conv3d(3, 2, 1))

    assert activation_bytes(make, 1, (10, 10, 10)) == (3 + 3 + 2) * 1000 * 4


def test_the_least_a_pass_holds_is_weights_image_and_answer() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.Conv3d(8, 5, 1))

    weights = 8 * 2 * 27 + 8 + 4 * 8 + 5 * 8 + 5
    # The count of batches is the only whole number, of 8 bytes.
    assert minimum_bytes(make, 2, (10, 9, 8)) == 4 * (weights + (2 + 5) * 720) + 8


def test_receptive_field_of_convolutions() -> None:
    layers = [
        nn.Conv3d(2, 4, (3, 5, 1), padding=(1, 2, 0)),
        nn.ReLU(),
        nn.BatchNorm3d(4),
        nn.Conv3d(4, 3, 3, padding=1),
    ]
    field = measure_receptive_field(nn.Sequential(*layers), 2, (15, 15, 15))
    assert field.voxels == (5, 7, 3)
    assert field.truncated == (False, False, False)
    assert field.farthest_offset is None
    assert not field.has_global_normalization


def test_receptive_field_that_fills_the_image_is_said_to_be_cut() -> None:
    field = measure_receptive_field(nn.Conv3d(1, 2, 7, padding=3), 1, (5, 9, 1))
    assert field.voxels == (5, 7, 1)
    assert field.truncated == (True, False, False)


def test_normalisation_over_the_image_is_left_out_and_said() -> None:
    layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, 2, 1))
    field = measure_receptive_field(layers, 1, (9, 9, 9))
    assert field.voxels == (3, 3, 3)
    assert field.has_global_normalization


def test_a_slice_network_sees_one_slice() -> None:
    torch.manual_seed(0)
    network = create_model("unet2d", in_channels=1, classes=2)
    field = measure_receptive_field(network, 1, (32, 32, 5))
    assert field.voxels == (32, 32, 1)
    assert field.truncated == (True, True, False)


def test_offsets_reach_as_far_as_they_point() -> None:
    torch.manual_seed(0)
    network = OneKernel(channels=1)
    with torch.no_grad():
        network.kernel.offsets.zero_()
        network.kernel.offsets[3] = torch.tensor([0.5, 0.0, -0.25])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    field = measure_receptive_field(network, 1, (16, 16, 16))
    # The central voxel 8 takes output 4, which lies at voxel 8.5: it reads voxels 8 and 9, the offset adds 4 and -2.
    assert field.farthest_offset == (4.0, 0.0, 2.0)
    assert field.voxels == (6, 2, 4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_seconds_and_memory_are_those_of_the_pass() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            held = image * self.factor
            return torch.stack([held * n for n in range(16)]).sum(0)

    speed = measure_time_and_memory(Holder(), 1, (128, 128, 128), repeats=3)
    # 16 maps of 8 MiB, then all of them stacked: 256 MiB, and what the allocator has not given back.
    assert 240 < speed.peak_bytes / 2**20 < 352
    assert 0 < speed.seconds < 10
