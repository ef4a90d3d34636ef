"""The U-Nets' own layouts: counts, cost, and what their options mean."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from farvox import create_model
from farvox.errors import ModelError
from farvox.models import count_parameters


def test_unet2d_has_the_published_size_and_cost() -> None:
    network = create_model("unet2d", in_channels=4, classes=3).eval()
    assert count_parameters(network) == 1_082_211
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 4, 32, 48, 2))
    assert counter.get_total_flops() / 2 / (32 * 48 * 2) == 38_640  # two operations a multiply-add


def test_unet2d_keeps_slices_apart() -> None:
    torch.manual_seed(0)
    network = create_model("unet2d").eval()
    image = torch.randn(2, 1, 20, 17, 5)
    other = image.clone()
    other[1, :, :, :, 3] += 1
    with torch.no_grad():
        changed = (network(image) != network(other)).any(1).any(1).any(1)  # (B, K)
        alone = network(image[1:, ..., 3:4])
        together = network(image)[1:, ..., 3:4]
    assert changed.nonzero().tolist() == [[1, 3]]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_unet3d_count_by_hand() -> None:
    widths = [16, 32, 64, 128]
    expected, inputs = 0, 1
    for width in widths:
        expected += 27 * inputs * width + 27 * width * width + 2 * 2 * width
        inputs = width
    for fine, coarse in pairwise(widths):
        expected += coarse * fine + 27 * 2 * fine * fine + 27 * fine * fine + 2 * 2 * fine
    expected += 16 * 2 + 2
    assert count_parameters(create_model("unet3d", widths=widths)) == expected == 1_325_906
    # Bundles of the first format name strides and no widths.
    assert count_parameters(create_model("unet3d", strides=[(2, 2, 2)] * 3)) == expected


def test_unet3d_of_five_levels_costs_what_the_distill_dsm_paper_prints() -> None:
    with torch.device("meta"):
        network = create_model("unet3d", in_channels=4, classes=3)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 4, 64, 64, 64))
    assert abs(count_parameters(network) / 4_288_208 - 1) < 0.02
    assert counter.get_total_flops() / 2 / 64**3 == 57_163
    assert abs(57_163 / 58_709 - 1) < 0.03


def test_unet3d_strides_set_the_sizes_of_its_maps() -> None:
    network = create_model("unet3d", widths=[4, 6, 8], strides=[(2, 2, 1), (1, 2, 2)])
    sizes = []
    for level in network.encoder:
        level.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, 7, 9, 5))
    assert sizes == [(4, 8, 12, 6), (6, 4, 6, 6), (8, 4, 3, 3)]


def test_unet3d_flat_kernels_keep_slices_apart() -> None:
    torch.manual_seed(0)
    network = create_model("unet3d", widths=[4, 6], strides=[(2, 2, 1)], kernels=[(3, 3, 1), (3, 3, 1)])
    for index, module in enumerate(list(network.modules())):
        if isinstance(module, nn.Sequential) and index and isinstance(module[1], nn.GroupNorm):
            module[1] = nn.Identity()  # instance statistics reach across slices; only the kernels are looked at here
    image = torch.randn(1, 1, 8, 8, 4)
    other = image.clone()
    other[..., 2] += 1
    with torch.no_grad():
        changed = (network(image) != network(other)).flatten(0, 3).any(0)
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, "one positive whole number per level"),
        ({"widths": [8, 0]}, "one positive whole number per level"),
        ({"widths": 16}, "widths=16 for 'unet3d'"),
        ({"widths": [8, "x"]}, "widths="),
        ({"widths": [8, 8], "strides": [2]}, "1 triples"),
        (
            {"widths": [4, 4, 4, 4], "strides": [(2, 2, 2)]},
            r"strides=\[\(2, 2, 2\)\] for 'unet3d'; expected: 3 triples",
        ),
        ({"widths": [8, 8], "strides": [(2, 2, 3)]}, "out of 1, 2"),
        ({"widths": [8, 8], "kernels": [(3, 3), (3, 3)]}, "2 triples"),
        ({"widths": [8], "kernels": [(2, 3, 3)]}, "out of 1, 3, 5"),
    ],
)
def test_unet3d_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("unet3d", **options)
