"""OBELISK: a large sparse kernel with learned offsets and weights, and the 1×1 network that follows it.

Heinrich, Oktay and Bouteldja, "OBELISK-Net: Fewer Layers to Solve 3D Multi-Organ Segmentation with Sparse Deformable
Convolutions", Medical Image Analysis 2019, doi:10.1016/j.media.2019.02.006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from farvox.blocks.batch_norm_fusion import can_fuse, fuse_norm_into_next
from farvox.errors import ModelError
from farvox.ops import PointwiseLayer, SampleGrid, pointwise_chain, sparse_conv


class Obelisk(nn.Module):
    """Sparse convolution with learned offsets, without bias.

    Args:
        in_channels: Channels of the image.
        out_channels: Output channels.
        offsets: Number of offsets K.
        pairs: Whether each offset is a pair: the first sample minus the second.
        groups: Groups of the weights; divides out_channels and in_channels · offsets.
        sigma: Standard deviation of the initial offsets, normalised units (the image spans −1 to +1).
        trainable: Whether the offsets are learned; the weights always are.

    Raises:
        ModelError: Groups that do not divide the channels.
    """

    offsets: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        offsets: int = 128,
        pairs: bool = False,
        groups: int = 1,
        sigma: float = 0.05,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if groups < 1 or out_channels % groups or in_channels * offsets % groups:
            raise ModelError(
                f"groups={groups} for {in_channels} channels × {offsets} offsets → {out_channels}",
                allowed="a number that divides both sides",
            )
        self.groups = groups
        start = sigma * torch.randn((offsets, 2, 3) if pairs else (offsets, 3))
        self.offsets = nn.Parameter(start, requires_grad=trainable)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * offsets // groups))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, image: torch.Tensor, grid: Sequence[int] | SampleGrid) -> torch.Tensor:
        """(B, in_channels, I, J, K) → (B, out_channels, *grid), or the slab of the grid."""
        shape = grid.output_shape if isinstance(grid, SampleGrid) else tuple(grid)
        weight = self.weight.to(image.dtype)  # differs under autocast
        return sparse_conv(image, self.offsets, weight, grid=grid, groups=self.groups).unflatten(2, shape)


class PointwiseDense(nn.Module):
    """1×1×1 dense network: each layer receives all previous maps, and a last layer reduces them.

    (B, C, I, J, K) → (B, out_channels, I, J, K). Each layer: batch norm, 1×1×1 convolution without bias, leaky ReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        growth: Channels that each layer adds.
        layers: Layers before the last one.
        slope: Slope of the leaky ReLU below zero; 0 is a plain ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, growth: int = 32, layers: int = 3, slope: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_pointwise(in_channels + growth * n, growth, slope) for n in range(layers))
        self.gather = _pointwise(in_channels + growth * layers, out_channels, slope)
        self._slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each position separately."""
        if can_fuse(x, *self.layers, self.gather):
            chain = [self._fused_layer(layer, concatenate=True) for layer in self.layers]
            chain.append(self._fused_layer(self.gather, concatenate=False))
            return pointwise_chain(x.flatten(2), chain).unflatten(2, x.shape[2:])
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.gather(x)

    def _fused_layer(self, layer: Any, concatenate: bool) -> PointwiseLayer:
        weight, bias = fuse_norm_into_next(layer[0], layer[1].weight.flatten(1))
        return PointwiseLayer(weight, bias, self._slope, concatenate)


def _pointwise(in_channels: int, out_channels: int, slope: float) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm3d(in_channels), nn.Conv3d(in_channels, out_channels, 1, bias=False), nn.LeakyReLU(slope)
    )
