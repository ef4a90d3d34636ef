"""Batch norm folded into the layer beside it, for evaluation."""

from __future__ import annotations

from typing import Any

import torch

Layer = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias."""


def norm_as_affine(norm: Any) -> Layer:
    """Factor and shift (C,) that a batch norm applies to each channel in evaluation."""
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor


def fold_norm_before(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, C) and bias (O,) of a layer that takes in a batch norm over its C inputs."""
    factor, shift = norm_as_affine(norm)
    moved = weight @ shift
    return weight * factor, moved if bias is None else bias + moved


def fold_norm_behind(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, ...) and bias (O,) of a layer that takes in a batch norm over its O outputs."""
    factor, shift = norm_as_affine(norm)
    folded = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else bias * factor + shift
