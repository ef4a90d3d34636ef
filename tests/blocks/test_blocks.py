"""Padding that is undone exactly, norms that equal torch's, and the OBELISK layer against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.blocks import ConvNormAct, Obelisk, PointwiseDense, crop_to, pad_to_multiple
from farvox.errors import ModelError
from farvox.ops import SampleGrid, sparse_sample

sizes = st.lists(st.integers(1, 9), min_size=3, max_size=3)
multiples = st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(sizes, multiples, st.integers(1, 3))
def test_padding_repeats_the_edge_and_crops_back(shape: list[int], multiple: list[int], coarsest: int) -> None:
    image = torch.randn(1, 2, *shape)
    padded = pad_to_multiple(image, multiple, coarsest)
    counts = [size / step for size, step in zip(padded.shape[2:], multiple, strict=True)]
    assert all(count == int(count) for count in counts)
    assert counts[0] * counts[1] * counts[2] >= coarsest
    index = [torch.arange(size).clamp(max=old - 1) for size, old in zip(padded.shape[2:], shape, strict=True)]
    assert torch.equal(padded, image[:, :, index[0][:, None, None], index[1][:, None], index[2]])
    assert torch.equal(crop_to(padded, shape), image)


def test_padding_leaves_a_fitting_image_alone() -> None:
    image = torch.zeros(1, 1, 8, 4, 6)
    assert pad_to_multiple(image, (4, 4, 2), coarsest=2) is image


def test_unit_is_convolution_instance_norm_and_leaky_relu() -> None:
    torch.manual_seed(0)
    unit = ConvNormAct(2, 5, (3, 3, 1), (2, 2, 1))
    norm = unit[1]
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    image = torch.randn(2, 2, 6, 8, 4)
    conv = F.conv3d(image, unit[0].weight, stride=(2, 2, 1), padding=(1, 1, 0))
    expected = F.leaky_relu(F.instance_norm(conv, weight=norm.weight, bias=norm.bias), 0.01)
    torch.testing.assert_close(unit(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True])
def test_obelisk_is_sampling_and_a_grouped_pointwise_convolution(pairs: bool) -> None:
    torch.manual_seed(0)
    layer = Obelisk(2, 6, offsets=9, pairs=pairs, groups=3, sigma=0.3)
    image, grid = torch.randn(2, 2, 7, 5, 6), SampleGrid((3, 2, 4), align_corners=True)
    read = sparse_sample(image, layer.offsets, grid=grid).reshape(2, 18, 3, 2, 4)
    expected = F.conv3d(read, layer.weight.reshape(6, 6, 1, 1, 1), groups=3)
    torch.testing.assert_close(layer(image, grid), expected, rtol=1e-4, atol=1e-5)


def test_obelisk_starts_with_the_spread_asked_for() -> None:
    torch.manual_seed(0)
    assert Obelisk(1, 4, offsets=4000, sigma=0.1).offsets.std().item() == pytest.approx(0.1, rel=0.03)


def test_frozen_offsets_stay_and_are_saved() -> None:
    layer = Obelisk(1, 4, offsets=8, trainable=False)
    layer(torch.randn(1, 1, 4, 4, 4), (2, 2, 2)).sum().backward()
    assert layer.offsets.grad is None
    assert layer.weight.grad.any()
    assert "offsets" in layer.state_dict()


def test_obelisk_groups_must_divide() -> None:
    with pytest.raises(ModelError, match="divides both sides"):
        Obelisk(1, 6, offsets=8, groups=3)


def test_dense_net_by_hand() -> None:
    torch.manual_seed(0)
    dense = PointwiseDense(4, 3, growth=2, layers=2, slope=0.1)
    x = torch.randn(2, 4, 3, 3, 3)
    seen = x
    for layer in dense.layers:
        new = F.conv3d(F.batch_norm(seen, None, None, training=True), layer[1].weight)
        seen = torch.cat((seen, F.leaky_relu(new, 0.1)), 1)
    expected = F.leaky_relu(F.conv3d(F.batch_norm(seen, None, None, training=True), dense.gather[1].weight), 0.1)
    torch.testing.assert_close(dense(x), expected, rtol=1e-4, atol=1e-5)
