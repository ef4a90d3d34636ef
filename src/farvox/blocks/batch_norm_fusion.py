"""Fusion of batch norm into the adjacent layer, for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from farvox.ops.fast_path import fast_path_unavailable_reason

Layer = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias."""


def can_fuse(x: torch.Tensor, *modules: nn.Module) -> bool:
    """Whether modules can be replaced by fused weights: nothing is trained, traced or hooked.

    True in evaluation without gradients, for a plain float32 tensor on a CPU outside autocast, when every batch norm
    among the modules (and inside them) uses running statistics, and no module has hooks or another type.

    Args:
        x: Input.
        modules: All modules that the fused operation replaces.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or fast_path_unavailable_reason([x]):
        return False
    return all(_is_plain(child) for module in modules for child in module.modules())


def _is_plain(module: nn.Module) -> bool:
    fusible = (nn.Conv1d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm3d, nn.ReLU, nn.LeakyReLU)
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d)):
        return not module.training and module.running_var is not None and module.weight is not None
    # A layer of another type, such as a subclass, may compute something else.
    return type(module) in fusible or any(True for _ in module.children())


def batch_norm_scale_shift(norm: Any) -> Layer:
    """Scale and shift (C,) of a batch norm in evaluation."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def fuse_norm_into_next(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, C) and bias (O,) of a layer, with the batch norm of its C inputs fused into it."""
    scale, shift = batch_norm_scale_shift(norm)
    fused_bias = weight @ shift
    return weight * scale, fused_bias if bias is None else bias + fused_bias


def fuse_norm_into_previous(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Layer:
    """Weight (O, ...) and bias (O,) of a layer, with the batch norm of its O outputs fused into it."""
    scale, shift = batch_norm_scale_shift(norm)
    fused = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return fused, shift if bias is None else bias * scale + shift
