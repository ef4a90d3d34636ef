"""The depth shift against its definition, written as loops, and against numbers a person can follow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.errors import UsageError
from farvox.ops import depth_shift


def test_by_hand() -> None:
    # One volume of three slices, four channels of one pixel: 10·slice + channel.
    maps = torch.tensor([[1, 2, 3, 4], [11, 12, 13, 14], [21, 22, 23, 24]]).reshape(3, 4, 1, 1).float()
    found = depth_shift(maps, 3, forward=2, backward=1).reshape(3, 4)
    assert found.tolist() == [[1, 0, 0, 14], [11, 2, 3, 24], [21, 12, 13, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_is_its_definition(batch: int, slices: int, stay: int, forward: int, backward: int) -> None:
    channels = max(1, stay + forward + backward)
    stay = channels - forward - backward
    maps = torch.randn(batch * slices, channels, 2, 3, dtype=torch.float64)
    expected = torch.zeros_like(maps)
    for b in range(batch):
        for k in range(slices):
            for c in range(channels):
                source = k if c < stay else k - 1 if c < stay + forward else k + 1
                if 0 <= source < slices:
                    expected[b * slices + k, c] = maps[b * slices + source, c]
    assert torch.equal(depth_shift(maps, slices, forward, backward), expected)


def test_gradient_is_the_shift_the_other_way() -> None:
    maps = torch.randn(4, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 4, 2, 2, dtype=torch.float64)
    (depth_shift(maps, 2, 1, 1) * weights).sum().backward()
    expected = torch.zeros(2, 2, 4, 2, 2, dtype=torch.float64)  # (B, K, C, I, J)
    pulled = weights.unflatten(0, (2, 2))
    expected[:, :, :2] = pulled[:, :, :2]
    expected[:, 0, 2], expected[:, 1, 3] = pulled[:, 1, 2], pulled[:, 0, 3]
    assert torch.equal(maps.grad, expected.flatten(0, 1))
    assert torch.autograd.gradcheck(lambda x: depth_shift(x, 2, 1, 2), maps)


def test_nothing_is_read_from_another_volume() -> None:
    maps = torch.zeros(6, 4, 1, 1)
    maps[:3] = float("nan")
    assert torch.equal(depth_shift(maps, 3, 2, 2)[3:], maps[3:])


@pytest.mark.parametrize(
    ("shape", "slices", "forward", "backward", "message"),
    [
        ((5, 4, 2, 2), 2, 1, 1, "whole volumes"),
        ((4, 4, 2), 2, 1, 1, "whole volumes"),
        ((4, 4, 2, 2), 0, 1, 1, "with 0 slices"),
        ((4, 4, 2, 2), 2, 3, 2, r"3 \+ 2 channels; expected: 0 to 4"),
        ((4, 4, 2, 2), 2, -1, 2, "channels in total"),
    ],
)
def test_impossible_shifts(shape: tuple[int, ...], slices: int, forward: int, backward: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        depth_shift(torch.zeros(shape), slices, forward, backward)
