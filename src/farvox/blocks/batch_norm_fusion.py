"""Batch norm folded into the layer beside it, and when a block may answer by such a shortcut."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from farvox.ops.fast_path import fast_path_unavailable_reason

Layer = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias."""


def can_fuse(x: torch.Tensor, *modules: nn.Module) -> bool:
    """Whether modules may be answered for by folded weights: nothing is learned, traced or listened to.

    True in evaluation without gradients, for a plain float32 tensor on a CPU outside autocast, when every batch norm
    among the modules (and inside them) uses running statistics, and no module has hooks or is of another kind.

    Args:
        x: Input.
        modules: All that the shortcut leaves out.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or fast_path_unavailable_reason([x]):
        return False
    return all(_is_plain(part) for module in modules for part in module.modules())


def _is_plain(module: nn.Module) -> bool:
    known = (nn.Conv1d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm3d, nn.ReLU, nn.LeakyReLU)
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d)):
        return not module.training and module.running_var is not None and module.weight is not None
    # Another layer in the place of one of these would not be answered for.
    return type(module) in known or any(True for _ in module.children())


def batch_norm_scale_shift(norm: Any) -> Layer:
    """Factor and shift (C,) that a batch norm applies to each channel in evaluation."""
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor


def fuse_norm_into_next(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, C) and bias (O,) of a layer that takes in a batch norm over its C inputs."""
    factor, shift = batch_norm_scale_shift(norm)
    moved = weight @ shift
    return weight * factor, moved if bias is None else bias + moved


def fuse_norm_into_previous(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, ...) and bias (O,) of a layer that takes in a batch norm over its O outputs."""
    factor, shift = batch_norm_scale_shift(norm)
    folded = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else bias * factor + shift
