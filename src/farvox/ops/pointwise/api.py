"""What blocks call, and the layers they call it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from farvox.ops.fast_path import fast_path_unavailable_reason
from farvox.ops.pointwise import cpu, reference


@dataclass(frozen=True)
class PointwiseLayer:
    """One layer: y = leaky(weight · x + bias).

    Args:
        weight: (O, C), or (C,) for a factor a channel.
        bias: (O,) or (C,).
        slope: Of the leaky ReLU below zero; 1 for none, 0 for a plain ReLU.
        behind: Whether y is put behind the channels of x; otherwise it takes their place.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    slope: float = 1.0
    concatenate: bool = False

    def detached(self) -> PointwiseLayer:
        """Without gradients."""
        return PointwiseLayer(self.weight.detach(), self.bias.detach(), self.slope, self.concatenate)


def pointwise_chain(x: torch.Tensor, steps: Sequence[PointwiseLayer]) -> torch.Tensor:
    """Take every position through a chain of layers.

    Without gradients on a CPU in float32 a few thousand positions go through all layers at a time; otherwise a layer
    is applied to all positions after the other.

    Args:
        x: (B, C, S).
        steps: The layers, batch norm folded in.

    Returns:
        (B, C', S).
    """
    steps = tuple(steps)
    fast = fast_path_unavailable_reason([x, *(t for step in steps for t in (step.weight, step.bias))]) is None
    return cpu.chain(x, steps) if fast else reference.chain(x, steps)
