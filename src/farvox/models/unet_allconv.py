"""The all-convolutional U-Nets that OBELISK-Net is compared with: strided convolutions and trilinear upsampling.

Heinrich, Oktay and Bouteldja, "OBELISK-Net: Fewer Layers to Solve 3D Multi-Organ Segmentation with Sparse Deformable
Convolutions", Medical Image Analysis 2019, doi:10.1016/j.media.2019.02.006, section 3.3 and Table 1. Two layouts:

* "tcia" is the layout of the published weights: 17 convolutions over six levels, 883,740 parameters with 9 classes. Its
  code drops half of the channels after every unit, in prediction as well, which is a mistake in the code. Here dropout
  is only active in training. The paper does not mention it.
* "visceral" is Table 1 (14 convolutions, five levels). The table prints "80→80" for its first convolution of the
  coarsest level, which takes 64 channels.

The leaner network is "visceral" with the groups of the text: 4 in layers 6, 7 and 11, 8 in layers 8, 9 and 10. That
gives 201,642 parameters with 9 classes, where the paper prints 220k; the text leaves no other reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import conv_batch_norm, crop_to, pad_beyond
from farvox.errors import ModelError, suggest
from farvox.models.registry import register_model, validate_dropout


@dataclass(frozen=True)
class AllConvLayout:
    """Differences of the variants.

    Args:
        widths: Channels at each level, finest first; each level halves the size of the one before.
        decoder: Channels of the decoder's units, coarsest first; the finest has as many as there are classes.
        dropout: Fraction of channels dropped after each unit in training.
        encoder_groups: Groups of the two convolutions of each level except the finest.
        decoder_groups: Groups of each unit of the decoder.
    """

    widths: tuple[int, ...]
    decoder: tuple[int, ...]
    dropout: float
    encoder_groups: tuple[int, ...]
    decoder_groups: tuple[int, ...]


LAYOUTS = {
    "tcia": AllConvLayout((5, 14, 28, 42, 56, 70), (56, 42, 28, 14), 0.5, (1, 1, 1, 1, 1), (1, 1, 1, 1)),
    "visceral": AllConvLayout((5, 16, 32, 64, 80), (64, 32, 9), 0.0, (1, 1, 1, 1), (1, 1, 1)),
    "lean": AllConvLayout((5, 16, 32, 64, 80), (64, 32, 9), 0.0, (1, 1, 4, 8), (8, 4, 1)),
}


@dataclass(frozen=True)
class AllConvConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        layout: Widths and groups.
        dropout: Fraction of channels dropped after each unit in training.
    """

    in_channels: int
    classes: int
    layout: AllConvLayout
    dropout: float


class UNetAllConv(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: AllConvConfig) -> None:
        super().__init__()
        self.config = config
        layout, classes, drop = config.layout, config.classes, config.dropout
        widths, coarse = layout.widths, (layout.widths[-1], *layout.decoder)
        self.encode_full = _unit(config.in_channels, widths[0], drop)
        self.encoder = nn.ModuleList(
            nn.Sequential(_unit(fine, width, drop, groups, stride=2), _unit(width, width, drop, groups))
            for (fine, width), groups in zip(pairwise(widths), layout.encoder_groups, strict=True)
        )
        # Each unit receives the upsampled coarser map and the encoder's map of its level.
        self.decoder = nn.ModuleList(
            _unit(coarser + skip, width, drop, groups)
            for coarser, skip, width, groups in zip(
                coarse[:-1], widths[-2:0:-1], layout.decoder, layout.decoder_groups, strict=True
            )
        )
        self.decode_full = _unit(coarse[-1] + widths[0], classes, drop)
        self.head = nn.Conv3d(classes, classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_beyond(image, 2 ** len(self.encoder))  # batch norm cannot be trained on a single voxel
        x = self.encode_full(x)  # (B, 5, I, J, K)
        maps = [x]
        for convolve in self.encoder:
            x = convolve(x)  # (B, widths[l], I / 2^l, J / 2^l, K / 2^l), sizes rounded up
            maps.append(x)
        for unit, skip in zip((*self.decoder, self.decode_full), maps[-2::-1], strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = unit(torch.cat((x, skip), 1))  # (B, decoder[n], size of skip), at last (B, classes, I, J, K)
        return crop_to(self.head(x), image.shape[2:])


@register_model(
    "unet-allconv",
    paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
    parameters=883_740,
    reference_arguments={"in_channels": 1, "classes": 9},
    input_requirements="any size, any channels",
    multiply_adds=11_606,
    note="layout of the published TCIA weights; variant='visceral', the paper's Table 1: 877,313 with 8 classes",
)
def build(in_channels: int, classes: int, variant: str = "tcia", dropout: float | None = None) -> UNetAllConv:
    """Build the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        variant: "tcia" or "visceral".
        dropout: Fraction of channels dropped after each unit in training, from 0 to below 1; None: that of the variant:
            0.5 for "tcia", 0 for "visceral".

    Raises:
        ModelError: Unknown variant, or a fraction out of range.
    """
    variants = ("tcia", "visceral")
    if variant not in variants:
        hint = suggest(str(variant), variants)
        raise ModelError(f"variant={variant!r} for 'unet-allconv'", allowed="tcia or visceral", hint=hint)
    return _build("unet-allconv", in_channels, classes, LAYOUTS[variant], dropout)


@register_model(
    "unet-allconv-lean",
    paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
    parameters=201_642,
    reference_arguments={"in_channels": 1, "classes": 9},
    input_requirements="any size, any channels",
    multiply_adds=9_439,
    note="Table 1 with the groups the text gives; the paper prints about 220,000",
)
def build_lean(in_channels: int, classes: int, dropout: float | None = None) -> UNetAllConv:
    """Build the leaner network; `dropout` as for `build`; None: 0.

    Raises:
        ModelError: A fraction out of range.
    """
    return _build("unet-allconv-lean", in_channels, classes, LAYOUTS["lean"], dropout)


def _build(name: str, in_channels: int, classes: int, layout: AllConvLayout, dropout: float | None) -> UNetAllConv:
    fraction = validate_dropout(layout.dropout if dropout is None else dropout, name)
    return UNetAllConv(AllConvConfig(in_channels, classes, layout, fraction))


def _unit(in_channels: int, out_channels: int, dropout: float, groups: int = 1, stride: int = 1) -> nn.Sequential:
    return conv_batch_norm(in_channels, out_channels, stride=stride, groups=groups).append(nn.Dropout3d(dropout))
