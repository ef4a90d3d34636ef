"""The U-Net with dense layers: printed counts, what the dense layers see, sizes they were not made for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox import create_model
from farvox.errors import ModelError
from farvox.models import count_parameters

CONVOLUTIONS = [(1, 5), (5, 10), (10, 10), (10, 30), (30, 30), (30, 50), (50, 50), (50, 20), (20, 20)]
CONVOLUTIONS += [(40, 20), (70, 20), (50, 10), (20, 8)]


@pytest.mark.parametrize(
    ("options", "classes", "values", "count"),
    [
        ({}, 9, 20 * 10 * 10 * 10, 16_286_236),
        ({"coarsest": [9, 9, 9]}, 9, 20 * 9 * 9 * 9, 11_944_816),
        ({"variant": "visceral"}, 8, 20 * 10 * 8 * 10, 13_081_422),
    ],
)
def test_counts(options: dict, classes: int, values: int, count: int) -> None:
    network = create_model("unet-global", classes=classes, **options)
    layers = [*CONVOLUTIONS, (13, classes), (classes, classes)]
    convolutions = sum(27 * a * b + b for a, b in layers) + 2 * sum(b for _, b in layers[:-1])
    dense = 2 * 400 * values + 400 + values
    assert count_parameters(network) == convolutions + dense == count
    assert [(m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, nn.Conv3d)] == layers
    printed = {16_286_236: 16e6, 13_081_422: 13e6}.get(count)
    assert printed is None or abs(count / printed - 1) < 0.03
    if count == 11_944_816:
        assert round(dense, -5) == 11_700_000  # "these two layers alone contain 11.7 million parameters"


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("unet-global", **({"coarsest": [2, 2, 2], "hidden": 160} | options)).eval()


def test_dense_layers_see_the_coarsest_map_as_it_is_where_it_fits() -> None:
    network = small()
    with torch.no_grad():
        for layer in (network.gather[0], network.spread[0]):
            layer.weight.copy_(torch.eye(160))
            layer.bias.zero_()
    given: list[torch.Tensor] = []
    network.decoder[0].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network(image)
        assert torch.equal(given[0][:, :20], given[0][:, 20:])  # identity layers hand on what the encoder found
        network(image[:, :, :, :, :17])
        assert torch.equal(given[1][:, :20], given[1][:, 20:])  # sizes rounded up: 2 × 2 × 2 again
        network(torch.cat((image, image), 2))
    resized = F.interpolate(given[2][:, 20:], size=(2, 2, 2), mode="trilinear", align_corners=False)
    expected = F.interpolate(resized, size=(4, 2, 2), mode="trilinear", align_corners=False)
    torch.testing.assert_close(given[2][:, :20], expected)


def test_every_voxel_depends_on_the_far_corner_through_the_dense_layers_alone() -> None:
    network = small().double()
    image = torch.randn(1, 1, 96, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    touched = image.clone()
    touched[0, 0, 0, 0, 0] += 100
    with torch.no_grad():
        change = (network(touched) - network(image)).abs().amax((0, 1))
        assert change[-1].min() > 1e-12
        for parameter in network.spread.parameters():
            parameter.zero_()
        change = (network(touched) - network(image)).abs().amax((0, 1))
    assert change[0, 0, 0] > 0
    assert change[-1].max() == 0


def test_dropout_ends_with_training() -> None:
    network, image = small(), torch.randn(1, 1, 40, 20, 20)
    assert torch.equal(network(image), network(image))
    network.train()
    assert not torch.equal(network(image), network(image))
    network = small(dropout=0.0).train()
    torch.testing.assert_close(network(image), network(image))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"variant": "brats"}, "tcia or visceral"),
        ({"coarsest": [9, 9]}, "three positive whole numbers"),
        ({"coarsest": [9, 9, 0]}, "three positive whole numbers"),
        ({"coarsest": 9}, "three positive whole numbers"),
        ({"hidden": 0}, "a positive whole number"),
        ({"dropout": -0.1}, "below 1"),
    ],
)
def test_impossible_options(options: dict, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        create_model("unet-global", **options)
