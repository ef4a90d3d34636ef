"""The plain truth of warping: torch's grid_sample; the one place here that knows its reversed axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def warp(maps: torch.Tensor, points: torch.Tensor, *, nearest: bool, fill: float | None) -> torch.Tensor:
    """As `farvox.ops.warp.warp`."""
    lead = points.shape[1:-1]
    reversed_points = points.flip(-1).reshape(len(points), -1, 1, 1, 3).expand(len(maps), -1, -1, -1, -1)
    mode = "nearest" if nearest else "bilinear"
    read = F.grid_sample(maps, reversed_points.to(maps), mode=mode, padding_mode="border", align_corners=False)
    if fill is not None:
        outside = (points.abs() > 1).any(-1).reshape(len(points), 1, -1, 1, 1)
        read = torch.where(outside, read.new_tensor(fill), read)
    return read.reshape(*maps.shape[:2], *lead)


def feature_distance(
    wanted: torch.Tensor, maps: torch.Tensor, points: torch.Tensor, round_below: float
) -> torch.Tensor:
    """Mean over (C, S) of |wanted − maps (C, I, J, K) at points (S, 3)|, rounded off near 0."""
    read = warp(maps[None], points[None], nearest=False, fill=None)[0]
    return F.smooth_l1_loss(read, wanted, beta=round_below)
