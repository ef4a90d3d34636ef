"""The prostate paper's 3D U-Net: its count, the order inside a block, and options that cannot be."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from farvox import create_model
from farvox.errors import ModelError
from farvox.models import count_parameters
from farvox.models.prostate_unet3d import build


def running_statistics(network: nn.Module) -> int:
    """Values of running means and variances: what Keras counts and torch does not."""
    return sum(2 * m.num_features for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d)))


def test_count_is_the_printed_one() -> None:
    network = build(in_channels=1, classes=1)
    assert count_parameters(network) + running_statistics(network) == 1_605_381
    widths, expected, inputs = (16, 32, 64, 128), 0, 1
    for width in widths:
        expected += 4 * inputs + 27 * inputs * width + 27 * width * width
        inputs = width
    for fine, coarse in pairwise(widths):
        expected += 27 * coarse * fine + 4 * 2 * fine + 27 * 2 * fine * fine + 27 * fine * fine
    assert expected + 16 + 1 == 1_605_381


def test_a_block_is_as_the_text_orders_it() -> None:
    block = create_model("prostate-unet3d").encoder[1]
    assert [type(layer).__name__ for layer in block] == ["BatchNorm3d", "Conv3d", "ReLU", "Dropout", "Conv3d", "ReLU"]
    assert block[3].p == 0.2


def test_three_levels_down_and_up() -> None:
    network = create_model("prostate-unet3d", widths=[2, 3, 4, 5])
    sizes = []
    for part in (*network.encoder, *network.up, *network.decoder):
        part.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, 16, 30, 9))
    down = [(2, 16, 32, 16), (3, 8, 16, 8), (4, 4, 8, 4), (5, 2, 4, 2)]
    assert sizes == [*down, down[2], down[2], down[1], down[1], down[0], down[0]]


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    network, image = create_model("prostate-unet3d", widths=[4, 8]), torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"widths=\[\] for 'prostate-unet3d'; expected: one positive whole number per level"),
        ({"widths": [8, 0]}, "one positive whole number"),
        ({"widths": "16"}, "one positive whole number"),
        ({"dropout": 1}, "dropout=1 .*0 to below 1"),
        ({"dropout": "no"}, "dropout='no'"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("prostate-unet3d", **options)
