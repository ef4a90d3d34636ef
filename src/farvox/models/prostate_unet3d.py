"""The prostate paper's 3D U-Net: the baseline of its dense networks.

Eschen, "Semantic Segmentation of the Prostate in 3D MRI", Technical University of Denmark 2018, section 4.2 and Figure
1, after Çiçek et al., "3D U-Net", MICCAI 2016. The text gives the order inside a block and the number of levels; widths
of 16, 32, 64, 128 without any bias but the last give the printed 1,605,381 values, counted as Keras does: four for each
channel of a batch norm (scale, shift and the two running statistics).

Departures: softmax over two classes or more where the paper has one sigmoid output; any size is padded to a multiple of
8 inside (the paper: 256×256×16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import crop_to, pad_to_multiple
from farvox.errors import ModelError
from farvox.models.registry import register_model, validate_dropout


@dataclass(frozen=True)
class ProstateUNet3dConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels at each level, finest first.
        dropout: Fraction of values set to zero between the two convolutions of a block in training.
    """

    in_channels: int
    classes: int
    widths: tuple[int, ...]
    dropout: float


class ProstateUNet3d(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: ProstateUNet3dConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder = nn.ModuleList(
            _block(inputs, width, config.dropout)
            for inputs, width in zip((config.in_channels, *widths), widths, strict=False)
        )
        # Level l of the decoder concatenates the upsampled coarser map, at half its width, and the encoder's map of
        # level l.
        finer = list(pairwise(widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 3, stride=2, padding=1, output_padding=1, bias=False)
            for fine, coarse in finer
        )
        self.decoder = nn.ModuleList(_block(2 * fine, fine, config.dropout) for fine, _ in finer)
        self.head = nn.Conv3d(widths[0], config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_to_multiple(image, (2 ** len(self.up),) * 3, coarsest=2)
        maps = []
        for level, convolve in enumerate(self.encoder):
            x = convolve(F.max_pool3d(x, 2) if level else x)  # (B, widths[l], I / 2^l, J / 2^l, K / 2^l)
            maps.append(x)
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat((maps[level], self.up[level](x)), 1))  # (B, widths[l], ...)
        return crop_to(self.head(x), image.shape[2:])


@register_model(
    "prostate-unet3d",
    paper="Eschen 2018 (DTU), after Çiçek et al. 2016",
    parameters=1_604_724,
    input_requirements="any size (padded inside to a multiple of 8), any channels",
    multiply_adds=55_760,
    note="1,605,381 by the paper's count: one output, four values for each channel of a batch norm",
)
def build(
    in_channels: int, classes: int, widths: Sequence[int] = (16, 32, 64, 128), dropout: float = 0.2
) -> ProstateUNet3d:
    """Build the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included; 1 gives the paper's single output.
        widths: Channels at each level, finest first; one level or more.
        dropout: Fraction of values set to zero in training, 0 to below 1.

    Raises:
        ModelError: Widths below 1, or a dropout outside its range.
    """
    if not isinstance(widths, (list, tuple)) or not widths or not all(type(w) is int and w >= 1 for w in widths):
        raise ModelError(f"widths={widths!r} for 'prostate-unet3d'", allowed="one positive whole number per level")
    dropout = validate_dropout(dropout, "prostate-unet3d")
    return ProstateUNet3d(ProstateUNet3dConfig(in_channels, classes, tuple(widths), dropout))


def _block(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm3d(in_channels),
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
    )
