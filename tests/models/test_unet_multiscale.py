"""The multi-scale U-Net: what the text says of it, counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farvox import create_model
from farvox.errors import ModelError
from farvox.models import count_parameters


def test_the_layout_the_text_describes() -> None:
    network = create_model("unet-multiscale", classes=8)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    assert len(convolutions) == 14
    assert all(module.kernel_size == (3, 3, 3) for module in convolutions)
    assert max(module.in_channels for module in convolutions) == 192
    assert sorted({module.out_channels for module in network.encoder.modules() if isinstance(module, nn.Conv3d)}) == [
        16,
        32,
        64,
        128,
    ]
    assert sum(module.stride == (2, 2, 2) for module in convolutions) == 4
    assert {module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)} == {0.1}
    assert not any(isinstance(module, (nn.MaxPool3d, nn.AvgPool3d)) for module in network.modules())


def test_the_count_lies_within_six_percent_of_the_printed_one() -> None:
    widths = [(1, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    widths += [(192, 64), (96, 32), (48, 8), (16, 8), (8, 8)]
    weights = sum(27 * before * after + after for before, after in widths)
    norms = 2 * sum(after for _, after in widths[:-1])
    count = count_parameters(create_model("unet-multiscale", classes=8))
    assert count == weights + norms == 1_313_576
    assert abs(count / 1_250_000 - 1) < 0.06


def test_an_odd_size_halves_upwards() -> None:
    network = create_model("unet-multiscale", widths=[4, 4, 4, 4, 4]).eval()
    sizes: list[tuple[int, ...]] = []
    for level in network.encoder:
        level.register_forward_hook(lambda module, given, map_: sizes.append(tuple(map_.shape[2:])))
    network(torch.zeros(1, 1, 33, 20, 7))
    assert sizes == [(17, 10, 4), (9, 5, 2), (5, 3, 1), (3, 2, 1)]


def test_a_tiny_image_keeps_two_voxels_at_the_coarsest_level() -> None:
    network = create_model("unet-multiscale", widths=[4, 4, 4, 4, 4])
    coarsest: list[tuple[int, ...]] = []
    network.encoder[-1].register_forward_hook(lambda module, given, map_: coarsest.append(tuple(map_.shape[2:])))
    for shape in ((16, 16, 16), (1, 1, 1), (3, 17, 2)):
        assert network(torch.randn(1, 1, *shape)).shape[2:] == shape
    assert coarsest == [(2, 1, 1), (2, 1, 1), (1, 2, 1)]


@pytest.mark.parametrize("widths", [[], [8], [8, 0], [8, 16.0], 8, "ab", [True, 4]], ids=str)
def test_impossible_widths(widths: object) -> None:
    with pytest.raises(ModelError, match="two or more positive whole numbers"):
        create_model("unet-multiscale", widths=widths)
