"""The layers that share features between slices: against sums written out, by hand, and their sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import DistillShift, ResidualShift
from farvox.models import count_parameters
from farvox.ops import depth_shift


def test_distillation_is_three_convolutions_between_slices() -> None:
    torch.manual_seed(0)
    shift = DistillShift(10, alpha=0.8).double()
    nn.init.normal_(shift.distill.weight)
    nn.init.normal_(shift.distill.bias)
    maps = torch.randn(2 * 3, 10, 4, 5, dtype=torch.float64)
    weights, biases = shift.distill.weight.split((4, 2, 2)), shift.distill.bias.split((4, 2, 2))
    keep, onward, back = (
        F.conv2d(maps[:, 2:], weight, bias, padding=1).unflatten(0, (2, 3))
        for weight, bias in zip(weights, biases, strict=True)
    )
    expected = torch.zeros(2, 3, 10, 4, 5, dtype=torch.float64)
    for k in range(3):
        expected[:, k, :2] = maps.unflatten(0, (2, 3))[:, k, :2]
        expected[:, k, 2:6] = keep[:, k]
        if k > 0:
            expected[:, k, 6:8] = onward[:, k - 1]
        if k < 2:
            expected[:, k, 8:] = back[:, k + 1]
    torch.testing.assert_close(shift(maps, 3), expected.flatten(0, 1))


def test_distillation_starts_as_the_plain_shift() -> None:
    maps = torch.randn(4, 8, 3, 3)
    torch.testing.assert_close(DistillShift(8, alpha=1.0)(maps, 4), depth_shift(maps, 4, 2, 2))


def test_residual_by_hand() -> None:
    # Three slices, four channels of one pixel: 10·slice + channel; channel 3 comes from before, channel 4 from behind.
    maps = torch.tensor([[1, 2, 3, 4], [11, 12, 13, 14], [21, 22, 23, 24]]).reshape(3, 4, 1, 1).float()
    found = ResidualShift(4, alpha=1.0)(maps, 3).reshape(3, 4)
    assert found.tolist() == [[1, 2, 3, 18], [11, 12, 16, 38], [21, 22, 36, 24]]


@pytest.mark.parametrize(
    ("channels", "alpha", "kernel", "values"),
    [
        (16, 0.5, 3, 8 * 8 * 9 + 8),
        (10, 0.5, 3, 5 * 5 * 9 + 5),
        (10, 0.4, 1, 4 * 4 + 4),
        (14, 1.0, 5, 14 * 14 * 25 + 14),
    ],
)
def test_shares_are_rounded_down(channels: int, alpha: float, kernel: int, values: int) -> None:
    assert count_parameters(DistillShift(channels, alpha, kernel)) == values
    assert ResidualShift(channels, alpha).each_way == int(alpha * channels + 1e-6) // 4
