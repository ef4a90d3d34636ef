"""Chains of 1×1×1 layers: the layers and their evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from farvox._deprecated import renamed_argument
from farvox.ops.fast_path import fast_path_unavailable_reason
from farvox.ops.pointwise import cpu, reference


@dataclass(frozen=True)
class PointwiseLayer:
    """One layer: y = leaky(weight · x + bias).

    Args:
        weight: (O, C), or (C,) for one factor per channel.
        bias: (O,) or (C,).
        slope: Slope of the leaky ReLU below zero; 1: no activation, 0: plain ReLU.
        concatenate: Whether y is concatenated after the channels of x; otherwise it replaces them.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    slope: float = 1.0
    concatenate: bool = False

    def detached(self) -> PointwiseLayer:
        """The same layer without gradients."""
        return PointwiseLayer(self.weight.detach(), self.bias.detach(), self.slope, self.concatenate)


@renamed_argument("steps", "layers")
def pointwise_chain(x: torch.Tensor, layers: Sequence[PointwiseLayer]) -> torch.Tensor:
    """Apply a chain of layers to each position.

    Without gradients, on a CPU and in float32, chunks of a few thousand positions pass through all layers; otherwise
    each layer is applied to all positions.

    Args:
        x: (B, C, S).
        layers: The layers, with batch norm fused into them.

    Returns:
        (B, C', S).
    """
    layers = tuple(layers)
    fast = fast_path_unavailable_reason([x, *(t for layer in layers for t in (layer.weight, layer.bias))]) is None
    return cpu.chain(x, layers) if fast else reference.chain(x, layers)
