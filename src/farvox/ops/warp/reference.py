"""Warping in plain PyTorch: grid_sample, whose points have reversed axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def warp(maps: torch.Tensor, points: torch.Tensor, *, nearest: bool, fill: float | None) -> torch.Tensor:
    """As `farvox.ops.warp.warp`."""
    lead = points.shape[1:-1]
    reversed_points = points.flip(-1).reshape(len(points), -1, 1, 1, 3).expand(len(maps), -1, -1, -1, -1)
    mode = "nearest" if nearest else "bilinear"
    sampled = F.grid_sample(maps, reversed_points.to(maps), mode=mode, padding_mode="border", align_corners=False)
    if fill is not None:
        outside = (points.abs() > 1).any(-1).reshape(len(points), 1, -1, 1, 1)
        sampled = torch.where(outside, sampled.new_tensor(fill), sampled)
    return sampled.reshape(*maps.shape[:2], *lead)


def feature_distance(
    target: torch.Tensor, maps: torch.Tensor, points: torch.Tensor, round_below: float
) -> torch.Tensor:
    """Smooth L1 distance over (C, S) between `target` and maps (C, I, J, K) at points (S, 3)."""
    sampled = warp(maps[None], points[None], nearest=False, fill=None)[0]
    return F.smooth_l1_loss(sampled, target, beta=round_below)
