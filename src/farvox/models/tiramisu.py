"""The prostate paper's 3D Tiramisu in its three sizes: a U-shaped network of dense blocks.

Eschen, "Semantic Segmentation of the Prostate in 3D MRI", Technical University of Denmark 2018, sections 4.4 and 5.3
and Figure 3, after Jégou, Drozdzal, Vazquez, Romero and Bengio, "The One Hundred Layers Tiramisu", CVPR workshops 2017.
Parameters of Table 1, batch norm not counted: p3b 23,487,169 and p4a 49,382,353, as here; p3a 22,692,289, where this
layout has 22,962,289: two digits of the print are swapped. Details that the text does not give are those of Jégou et
al.: the 1×1×1 convolution before each pooling, dropout of 0.2, and the decoder upsamples only the maps that a block
added.

Departures: softmax over two classes or more where the paper has one sigmoid output; any size is padded inside to a
multiple of 2 for each pooling (the paper: 64×64×16); the dense blocks repeat their concatenations in the backward pass
(same results to the bit; a step of p3b on two patches of 64×64×16 needs 3.5 GB instead of 12.4: `farvox.blocks.dense`).
The abstract and the text report a Dice of 0.898 for p4a; Table 1 reports 0.867 for it, and 0.898 for p3a and p3b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import DenseBlock, PreActivationConv, crop_to, pad_to_multiple
from farvox.errors import ModelError
from farvox.models.registry import register_model, validate_dropout


@dataclass(frozen=True)
class TiramisuConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        layers: Layers of each dense block: encoder, bottom, decoder.
        growth: Channels that each layer adds.
        first: Channels of the first convolution.
        dropout: Fraction of each convolution's output that is set to zero in training.
        recompute: Save memory in training by repeating cheap operations in the backward pass.
    """

    in_channels: int
    classes: int
    layers: tuple[int, ...]
    growth: int
    first: int
    dropout: float
    recompute: bool


class Tiramisu(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: TiramisuConfig) -> None:
        super().__init__()
        self.config = config
        depth, growth = len(config.layers) // 2, config.growth
        encoder_layers, bottom, decoder_layers = config.layers[:depth], config.layers[depth], config.layers[depth + 1 :]
        settings = growth, config.dropout, config.recompute
        self.first = nn.Conv3d(config.in_channels, config.first, 3, padding=1, bias=False)
        width, skips = config.first, []
        self.down, self.narrow = nn.ModuleList(), nn.ModuleList()
        for layers in encoder_layers:
            self.down.append(DenseBlock(width, layers, *settings))
            width += layers * growth
            skips.append(width)
            self.narrow.append(PreActivationConv(width, width, 1, *settings[1:]))
        self.bottom = DenseBlock(width, bottom, *settings)
        added = bottom * growth
        self.lift, self.up = nn.ModuleList(), nn.ModuleList()
        for layers, skip in zip(decoder_layers, reversed(skips), strict=True):
            self.lift.append(nn.ConvTranspose3d(added, added, 3, stride=2, padding=1, output_padding=1))
            width, added = added + skip, layers * growth
            self.up.append(DenseBlock(width, layers, *settings))
        self.head = nn.Conv3d(width + added, config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_to_multiple(image, (2 ** len(self.down),) * 3, coarsest=2)
        x = self.first(x)  # (B, first, I, J, K)
        skips = []
        for block, narrow in zip(self.down, self.narrow, strict=True):
            x = torch.cat((x, block(x)), 1)  # all maps so far, (B, first + growth · layers so far, I / 2^l, ...)
            skips.append(x)
            x = F.max_pool3d(narrow(x), 2)
        parts = [self.bottom(x)]  # only the maps that the block added are upsampled
        added = parts[0]
        for block, lift in zip(self.up, self.lift, strict=True):
            parts = [lift(added), skips.pop()]
            added = block(*parts)  # (B, growth · layers, I / 2^l, ...)
        return crop_to(self.head(torch.cat((*parts, added), 1)), image.shape[2:])


@register_model(
    "tiramisu-p3a",
    paper="Eschen 2018 (DTU), after Jégou et al. 2017",
    parameters=23_049_666,
    input_requirements="any size (padded inside to a multiple of 8), any channels",
    multiply_adds=5_328_777,
    note="22,962,289 by the paper's rule (one output, no batch norm), printed with two digits swapped",
)
def build_p3a(
    in_channels: int,
    classes: int,
    layers: Sequence[int] = (7, 8, 9, 12, 15, 16, 17),
    growth: int = 16,
    first: int = 48,
    dropout: float = 0.2,
    recompute: bool = True,
) -> Tiramisu:
    """Three poolings, blocks that grow from 7 to 17 layers.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included; 1 gives the paper's single output.
        layers: Layers of each dense block, finest to coarsest to finest: an odd number of blocks, at least 3.
        growth: Channels that each layer adds.
        first: Channels of the first convolution.
        dropout: Fraction of each convolution's output that is set to zero in training, 0 to below 1.
        recompute: Save memory in training by repeating cheap operations in the backward pass.

    Raises:
        ModelError: An even number of blocks, a number below 1, a dropout outside its range, or `recompute` is not a
            bool.
    """
    fits = isinstance(layers, (list, tuple)) and len(layers) % 2 == 1 and len(layers) >= 3
    if not fits or not all(type(number) is int and number >= 1 for number in layers):
        raise ModelError(f"layers={layers!r} for a Tiramisu", allowed="3, 5, 7 … positive whole numbers, one per block")
    for name, value in (("growth", growth), ("first", first)):
        if type(value) is not int or value < 1:
            raise ModelError(f"{name}={value!r} for a Tiramisu", allowed="a positive whole number")
    dropout = validate_dropout(dropout, "tiramisu")
    if not isinstance(recompute, bool):
        raise ModelError(f"recompute={recompute!r} for a Tiramisu", allowed="true or false")
    return Tiramisu(TiramisuConfig(in_channels, classes, tuple(layers), growth, first, dropout, recompute))


@register_model(
    "tiramisu-p3b",
    paper="Eschen 2018 (DTU), after Jégou et al. 2017",
    parameters=23_582_354,
    input_requirements="any size (padded inside to a multiple of 8), any channels",
    multiply_adds=4_428_645,
    note="23,487,169 by the paper's count: one output, no batch norm",
)
def build_p3b(
    in_channels: int,
    classes: int,
    layers: Sequence[int] = (12,) * 7,
    growth: int = 16,
    first: int = 48,
    dropout: float = 0.2,
    recompute: bool = True,
) -> Tiramisu:
    """Three poolings, 12 layers in every block; arguments as in `build_p3a`."""
    return build_p3a(in_channels, classes, layers, growth, first, dropout, recompute)


@register_model(
    "tiramisu-p4a",
    paper="Eschen 2018 (DTU), after Jégou et al. 2017",
    parameters=49_571_874,
    input_requirements="any size (padded inside to a multiple of 16), any channels",
    multiply_adds=4_341_871,
    note="49,382,353 by the paper's count: one output, no batch norm",
)
def build_p4a(
    in_channels: int,
    classes: int,
    layers: Sequence[int] = (9, 10, 12, 15, 17, 20, 17, 15, 12),
    growth: int = 16,
    first: int = 48,
    dropout: float = 0.2,
    recompute: bool = True,
) -> Tiramisu:
    """Four poolings, blocks of 9 to 20 layers; arguments as in `build_p3a`."""
    return build_p3a(in_channels, classes, layers, growth, first, dropout, recompute)
