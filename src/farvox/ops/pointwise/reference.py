"""A chain of 1×1×1 layers in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from farvox.ops.pointwise.api import PointwiseLayer


def chain(x: torch.Tensor, layers: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """As `pointwise_chain`."""
    for layer in layers:
        product = x * layer.weight[:, None] if layer.weight.ndim == 1 else layer.weight @ x
        y = F.leaky_relu(product + layer.bias[:, None], layer.slope)
        x = torch.cat((x, y), 1) if layer.concatenate else y
    return x
