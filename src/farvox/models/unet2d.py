"""A 2D U-Net that segments a volume slice by slice along K: the base of the depth-shift networks.

The 2D U-Net of Maheshwari et al., "Distill DSM: Computationally Efficient Method for Segmentation of Medical Imaging
Volumes", MIDL 2021, after Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015. The paper does not print the layout;
this one has its 1,082,211 parameters with 4 channels and 3 classes, and 38,640 multiply-adds per pixel (printed:
38,662).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import crop_to, pad_to_multiple
from farvox.models.registry import register_model

_WIDTHS = (16, 32, 64, 128, 128)
_DECODER_WIDTHS = (16, 16, 32, 64)
"""Output channels of each level of the decoder, finest first."""


@dataclass(frozen=True)
class UNet2dConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
    """

    in_channels: int
    classes: int


class UNet2d(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K), each slice (I, J) separately."""

    def __init__(self, config: UNet2dConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.ModuleList(
            _double_conv(inputs, width, width)
            for inputs, width in zip((config.in_channels, *_WIDTHS), _WIDTHS, strict=False)
        )
        below = (*_DECODER_WIDTHS[1:], _WIDTHS[-1])
        self.decoder = nn.ModuleList(
            _double_conv(skip + coarse, (skip + coarse) // 2, width)
            for skip, coarse, width in zip(_WIDTHS, below, _DECODER_WIDTHS, strict=False)
        )
        self.head = nn.Conv2d(_DECODER_WIDTHS[0], config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        batch, _, i, j, k = image.shape
        x = image.movedim(-1, 1).flatten(0, 1)  # (B·K, C, I, J)
        x = pad_to_multiple(x, (16, 16), coarsest=2)
        maps = []
        for level, convolve in enumerate(self.encoder):
            x = convolve(F.max_pool2d(x, 2) if level else x)  # (B·K, widths[l], I / 2^l, J / 2^l)
            maps.append(x)
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(x, size=maps[level].shape[2:], mode="bilinear", align_corners=True)
            x = self.decoder[level](torch.cat((maps[level], x), 1))
        logits = crop_to(self.head(x), (i, j))
        return logits.unflatten(0, (batch, k)).movedim(1, -1)


@register_model(
    "unet2d",
    paper="Maheshwari et al. 2021 (Distill DSM, MIDL), after Ronneberger et al. 2015",
    parameters=1_082_211,
    reference_arguments={"in_channels": 4, "classes": 3},
    dims=2,
    input_requirements="any size (slices padded inside to a multiple of 16), any channels",
    multiply_adds=38_640,
    note="slices along K one by one: K should be the axis of thick slices",
)
def build(in_channels: int, classes: int) -> UNet2d:
    """Build the network; it has no options."""
    return UNet2d(UNet2dConfig(in_channels, classes))


def _double_conv(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 3, padding=1),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
