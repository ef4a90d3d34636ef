"""DeepLabv3+ on stacks of slices: printed counts, which slices are seen, pixels that stay in their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from farvox import create_model
from farvox.blocks import SeparableConv2d, XceptionUnit
from farvox.errors import ModelError
from farvox.models import count_parameters
from farvox.models.prostate_deeplab import build
from tests.models.test_prostate import running_statistics

TINY = {"width": 1 / 16, "middle_units": 1}


def tiny(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model("prostate-deeplab", **TINY, **options).eval()


@pytest.mark.parametrize(("slices", "count"), [(13, 41_255_953), (3, 41_253_073)])
def test_count_as_keras_has_it(slices: int, count: int) -> None:
    with torch.device("meta"):
        network = build(in_channels=1, classes=1, slices=slices)
    assert count_parameters(network) + running_statistics(network) == count


def test_rates_and_strides_are_the_printed_ones() -> None:
    with torch.device("meta"):
        network = build(in_channels=1, classes=2)
    assert len(network.middle) == 16
    assert {unit.second.depthwise.dilation for unit in network.middle} == {(2, 2)}
    assert [unit.second.depthwise.dilation[0] for unit in network.exit] == [2, 4]
    assert [branch.depthwise.dilation[0] for branch in network.pyramid if isinstance(branch, SeparableConv2d)] == [
        12,
        24,
        36,
    ]
    small, sizes = tiny(), []
    for part in (small.stem, *small.entry, *small.exit, small.gather, small.decoder):
        part.register_forward_hook(
            lambda module, inputs, output: sizes.append(tuple((output[0] if type(output) is tuple else output).shape))
        )
    with torch.no_grad():
        small(torch.zeros(1, 1, 33, 20, 3))
    assert [size[0] for size in sizes] == [3] * 8
    # 33 × 20 becomes 33 × 25 inside, then halves on its own grid: (n - 1) / 2 + 1.
    assert [size[2:] for size in sizes] == [(17, 13), (9, 7), (5, 4), (5, 4), (5, 4), (5, 4), (5, 4), (9, 7)]


@pytest.mark.parametrize(("slices", "reach"), [(13, 6), (5, 2), (1, 0)])
def test_a_slice_sees_its_neighbours_and_none_beyond(slices: int, reach: int) -> None:
    network, image = tiny(slices=slices), torch.randn(1, 1, 9, 9, 17)
    touched = image.clone()
    touched[..., 8] += 1
    with torch.no_grad():
        changed = (network(image) != network(touched)).flatten(0, 3).any(0)
    assert changed.nonzero().ravel().tolist() == list(range(8 - reach, 8 + reach + 1))


def test_beyond_the_ends_the_last_slice_is_repeated() -> None:
    network, image = tiny(slices=5), torch.randn(1, 2, 9, 10, 3)
    network = create_model("prostate-deeplab", in_channels=2, slices=5, **TINY).eval()
    longer = image[..., [0, 0, 0, 1, 2, 2, 2]]
    with torch.no_grad():
        torch.testing.assert_close(network(longer)[..., 2:5], network(image), rtol=1e-4, atol=1e-5)


def test_pixels_stay_in_their_place() -> None:
    """Kernels and image turned by 180° give the answer turned: nothing is half a pixel off to one side."""
    network, image = tiny(slices=1), torch.randn(1, 1, 17, 33, 1)
    with torch.no_grad():
        expected = network(image)
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.copy_(weight.flip(2, 3))
        found = network(image.flip(2, 3)).flip(2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


def test_one_slice_in_training_keeps_the_pooled_image() -> None:
    network = tiny().train()
    before = network.pooled.norm.running_mean.clone()
    network.pooled.norm.running_mean.fill_(-1e6)  # far below every value, so that ReLU lets all pass
    x = torch.randn(1, 128, 2, 2)
    expected = (network.pooled.conv(x.mean((2, 3), keepdim=True)) + 1e6) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(network.pooled(x), expected.expand(-1, -1, 2, 2))
    network.pooled.norm.running_mean.copy_(before)
    network.pooled(x)
    assert torch.equal(network.pooled.norm.running_mean, before)
    network.pooled(x.expand(2, -1, -1, -1))
    assert not torch.equal(network.pooled.norm.running_mean, before)


def test_a_unit_adds_its_shortcut_and_hands_out_the_map_before_its_stride() -> None:
    torch.manual_seed(0)
    unit = XceptionUnit(3, (4, 5, 6), stride=2).double().eval()
    x = torch.randn(1, 3, 7, 8, dtype=torch.float64)
    scale = (1 + 1e-5) ** -0.5  # of a fresh batch norm
    with torch.no_grad():
        y, fine = unit(x)
        shown = x
        for part, step in ((unit.first, 1), (unit.second, 1), (unit.third, 2)):
            before = shown
            shown = torch.conv2d(shown.relu(), part.depthwise.weight, None, step, 1, 1, groups=shown.shape[1]) * scale
            shown = torch.conv2d(shown, part.pointwise.weight) * scale
        torch.testing.assert_close(fine, before)
        torch.testing.assert_close(y, shown + torch.conv2d(x, unit.shortcut[0].weight, stride=2) * scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": 4}, "slices=4 for 'prostate-deeplab'; expected: an odd whole number"),
        ({"slices": -1}, "slices=-1"),
        ({"middle_units": -1}, "middle_units=-1"),
        ({"middle_units": 1.5}, "middle_units=1.5"),
        ({"width": 0}, "width=0"),
        ({"width": "half"}, "width='half'"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("prostate-deeplab", **options)
