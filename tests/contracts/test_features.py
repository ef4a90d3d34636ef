"""Features of every registered network: what enters the last layer, so that the last layer gives the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox import create_model, list_models
from farvox.errors import ModelError
from farvox.models import PointNetwork
from farvox.models.features import classification_layer, feature_maps, features_and_logits
from tests.contracts.test_models import SMALL

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, SMALL.get(name, {})) for name in list_models()),
    ("obelisk-hybrid", {"variant": "visceral"}),
    ("obelisk-dense", {"stride": 1, "smoothing": [], "offsets": 64}),
]


def _network(name: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(name, 1, 3, **options)
    network(torch.randn(2, 1, 34, 12, 9))  # moves running statistics, where there are any
    return network.eval()


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value)[:40])
def test_the_last_layer_turns_features_into_the_logits(name: str, options: dict[str, Any]) -> None:
    network, image = _network(name, options), torch.randn(2, 1, 34, 12, 9)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    maps, logits = features_and_logits(network, image)
    with torch.no_grad():
        expected = network(image)
        layer = classification_layer(network)
        if isinstance(layer, nn.Conv1d):
            found = layer(maps.flatten(2)).unflatten(2, maps.shape[2:])
        elif isinstance(layer, nn.Conv2d):
            found = layer(maps.movedim(-1, 1).flatten(0, 1)).unflatten(0, (2, 9)).movedim(1, -1)
        else:
            found = layer(maps)
        torch.testing.assert_close(logits, found if isinstance(network, PointNetwork) else expected)
        if found.shape != expected.shape:
            found = F.interpolate(found, expected.shape[2:], mode="trilinear", align_corners=False)
    # Shortcuts at inference round differently.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert not maps.requires_grad
    assert maps.flatten(2).std(2).max() > 1e-3
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_stride_says_where_a_point_network_is_asked() -> None:
    network, image = _network("obelisk-dense", {"offsets": 32, "smoothing": []}), torch.randn(1, 1, 12, 9, 9)
    everywhere, third = feature_maps(network, image, 1), feature_maps(network, image, 3)
    assert everywhere.shape == (1, 256, 12, 9, 9)
    torch.testing.assert_close(third, everywhere[:, :, 1::3, 1::3, 1::3], rtol=1e-4, atol=1e-4)


def test_a_network_without_a_last_layer_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="Sequential has no last convolution") as error:
        feature_maps(nn.Sequential(nn.Conv3d(1, 2, 1)), torch.zeros(1, 1, 4, 4, 4))
    assert "`head`" in str(error.value)
