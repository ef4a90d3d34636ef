"""A convolution unit for full-size maps of few channels, which runs as one fused operation in inference."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks.batch_norm_fusion import can_fuse, fuse_norm_into_previous
from farvox.blocks.conv import conv_batch_norm
from farvox.ops import fused_conv

_FEW = 16
"""Output channels up to which the fused operation is faster; libraries pad channels to this number."""


class FusedConvUnit(nn.Sequential):
    """3×3×3 convolution, batch norm, leaky ReLU.

    In evaluation without gradients and with up to 16 outputs, batch norm is fused into the convolution, and everything
    is one pass over the volume, including the upsampling of coarser maps before it and a 1×1×1 convolution after it.

    Args:
        in_channels: Input channels, those of the coarser map included.
        out_channels: Output channels.
        slope: Slope of the leaky ReLU below zero.
    """

    def __init__(self, in_channels: int, out_channels: int, slope: float) -> None:
        super().__init__(*conv_batch_norm(in_channels, out_channels, slope))
        self._slope, self._outputs = slope, out_channels

    def forward(
        self, image: torch.Tensor, coarse: torch.Tensor | None = None, head: nn.Conv3d | None = None
    ) -> torch.Tensor:
        """(B, C, I, J, K), and coarser maps (B, D, i, j, k) to concatenate → (B, out_channels or head's, I, J, K)."""
        if self._outputs > _FEW or not can_fuse(image, *self, *([] if head is None else [head])):
            if coarse is not None:
                coarse = F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=False)
                image = torch.cat((coarse, image), 1)
            y = super().forward(image)
            return y if head is None else head(y)
        conv: Any = self[0]
        weight, bias = fuse_norm_into_previous(self[1], conv.weight, conv.bias)
        return fused_conv(
            image,
            weight,
            bias,
            slope=self._slope,
            coarse=coarse,
            head_weight=None if head is None else head.weight.flatten(1),
            head_bias=None if head is None else head.bias,
        )
