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
