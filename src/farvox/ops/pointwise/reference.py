"""The plain truth of a chain of 1×1×1 layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from farvox.ops.pointwise.api import PointwiseLayer


def chain(x: torch.Tensor, steps: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """As `pointwise_chain`."""
    for step in steps:
        product = x * step.weight[:, None] if step.weight.ndim == 1 else step.weight @ x
        y = F.leaky_relu(product + step.bias[:, None], step.slope)
        x = torch.cat((x, y), 1) if step.concatenate else y
    return x
