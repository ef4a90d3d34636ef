"""The all-convolutional U-Nets: printed counts, groups, dropout; published weights are in tests/bundle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farvox import create_model
from farvox.errors import ModelError
from farvox.models import count_parameters

# Table 1 of the paper with the first convolution of the coarsest level taking its 64 channels: (in, out), in order.
TABLE = [(1, 5), (5, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 80), (80, 80)]
TABLE += [(144, 64), (96, 32), (48, 9), (14, 8), (8, 8)]


def convolutions(network: nn.Module) -> list[nn.Conv3d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv3d)]


def by_hand(groups: dict[int, int]) -> int:
    """Count of a network as in the table, with groups for the layers (from 1) named."""
    kernels = sum(27 * a * b // groups.get(n, 1) for n, (a, b) in enumerate(TABLE, start=1))
    biases, norms = sum(b for _, b in TABLE), 2 * sum(b for _, b in TABLE[:-1])
    return kernels + biases + norms


def test_the_published_layout() -> None:
    network = create_model("unet-allconv", classes=9)
    assert count_parameters(network) == 883_740
    assert len(convolutions(network)) == 17


def test_table_1_is_the_visceral_variant() -> None:
    network = create_model("unet-allconv", classes=8, variant="visceral")
    assert [(module.in_channels, module.out_channels) for module in convolutions(network)] == TABLE
    assert count_parameters(network) == by_hand({}) == 877_313
    assert abs(count_parameters(network) / 880_000 - 1) < 0.005  # "approx. 880k"


def test_the_lean_network_groups_the_middle() -> None:
    network = create_model("unet-allconv-lean", classes=8)
    groups = {n: module.groups for n, module in enumerate(convolutions(network), start=1) if module.groups > 1}
    assert groups == {6: 4, 7: 4, 8: 8, 9: 8, 10: 8, 11: 4}
    assert count_parameters(network) == by_hand(groups) == 200_801
    assert abs(count_parameters(network) / 220_000 - 1) < 0.1  # printed "220k", which the text's groups miss by 9 %


def test_dropout_ends_with_training() -> None:
    torch.manual_seed(0)
    network, image = create_model("unet-allconv"), torch.randn(1, 1, 40, 20, 20)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [
        ("unet-allconv", {}, 0.5),
        ("unet-allconv", {"variant": "visceral"}, 0.0),
        ("unet-allconv", {"variant": "visceral", "dropout": 0.2}, 0.2),
        ("unet-allconv", {"dropout": 0}, 0.0),
        ("unet-allconv-lean", {}, 0.0),
        ("unet-allconv-lean", {"dropout": 0.1}, 0.1),
    ],
)
def test_dropout_is_the_variants_unless_given(name: str, options: dict, share: float) -> None:
    network = create_model(name, **options)
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout3d)} == {share}


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("unet-allconv", {"variant": "lean"}, "tcia or visceral"),
        ("unet-allconv", {"dropout": 1.0}, "below 1"),
        ("unet-allconv-lean", {"dropout": "half"}, "below 1"),
        ("unet-allconv-lean", {"variant": "tcia"}, "has no option"),
    ],
)
def test_impossible_options(name: str, options: dict, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        create_model(name, **options)
