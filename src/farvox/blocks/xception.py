"""Blocks of Xception: separable convolutions with dilation, and residual units of three of them.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, in the form of Chen, Zhu,
Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation"
(DeepLabv3+), ECCV 2018: strided convolutions instead of pooling, and a batch norm after each depthwise convolution.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


class SeparableConv2d(nn.Module):
    """3×3 depthwise and 1×1 pointwise convolution, each with batch norm and without bias; (B, C, I, J) → same layout.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride along both axes; n pixels become ⌈n / stride⌉.
        rate: Dilation of the 3×3 kernel, pixels.
        activate: "before": one ReLU before both (in residual units); "after": one after each batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        rate: int = 1,
        activate: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, rate, rate, groups=in_channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)
        self.activate = activate
        # The default initialisation shrinks the map slightly in each of about sixty stacked layers.
        nn.init.kaiming_normal_(self.depthwise.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="linear" if activate == "before" else "relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, I, J) → (B, out_channels, ⌈I / stride⌉, ⌈J / stride⌉), zeros outside the image."""
        if self.activate == "before":
            return self.pointwise_norm(self.pointwise(self.depthwise_norm(self.depthwise(F.relu(x)))))
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return F.relu(self.pointwise_norm(self.pointwise(x)))


class XceptionUnit(nn.Module):
    """Three separable convolutions, the last one strided, with a shortcut connection.

    Args:
        in_channels: Input channels.
        widths: Output channels of the three convolutions.
        stride: Stride of the third.
        rate: Dilation, pixels.
        shortcut: "conv": a 1×1 convolution with batch norm; "identity": the input; None: no shortcut.
        activate: As in `SeparableConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int, int],
        stride: int = 1,
        rate: int = 1,
        shortcut: Literal["conv", "identity"] | None = "conv",
        activate: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.first = SeparableConv2d(in_channels, first, 1, rate, activate)
        self.second = SeparableConv2d(first, second, 1, rate, activate)
        self.third = SeparableConv2d(second, third, stride, rate, activate)
        self.shortcut: nn.Module | None = None
        if shortcut == "conv":
            conv = nn.Conv2d(in_channels, third, 1, stride, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(third))
        elif shortcut == "identity":
            self.shortcut = nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, in_channels, I, J) → the output, and the map after the second convolution, before the stride."""
        before_stride = self.second(self.first(x))
        y = self.third(before_stride)
        return (y if self.shortcut is None else y + self.shortcut(x)), before_stride
