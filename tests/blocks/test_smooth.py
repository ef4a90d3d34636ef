"""Smoothing against average pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from farvox.blocks import box_smooth


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(7, 9, 6), (1, 2, 3)])
def test_same_as_average_pooling(size: int, shape: tuple[int, ...]) -> None:
    image = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = F.pad(image, (size // 2,) * 6)
    torch.testing.assert_close(box_smooth(image, size), F.avg_pool3d(padded, size, stride=1))


def test_half_precision_does_not_overflow() -> None:
    image = torch.full((1, 1, 7, 7, 7), 3000.0).half()
    assert box_smooth(image, 5)[0, 0, 3, 3, 3].item() == pytest.approx(3000, rel=0.01)
