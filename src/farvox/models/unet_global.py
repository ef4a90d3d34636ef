"""U-Net with two dense layers in its bottleneck, which connect every coarse voxel to the whole image.

Heinrich, Oktay and Bouteldja, "OBELISK-Net: Fewer Layers to Solve 3D Multi-Organ Segmentation with Sparse Deformable
Convolutions", Medical Image Analysis 2019, doi:10.1016/j.media.2019.02.006, section 3.3 ("Global FC U-Net"); widths,
leaky ReLU 0.1 and dropout between the dense layers are those of the code published with it.

Dense layers need a fixed size, so the coarsest map (20 channels, a sixteenth of the size) is resized to `coarsest`
before them and back after them. The numbers of the paper are inconsistent: its
text has 9×9×9 (11.7 M in the dense layers, from 144³ images), its Table 4 prints 16 M for TCIA, which is what
10×10×10 (160³ images) costs. "tcia" has the printed number: 16,286,236 with 9 classes; `coarsest=[9, 9, 9]` has that of
the text: 11,944,816. "visceral", 10×8×10 for the 156×115×160 images of Table 3, has 13,081,422 with 8 classes (printed:
13 M).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import conv_batch_norm, crop_to, pad_beyond
from farvox.errors import ModelError, suggest
from farvox.models.registry import register_model, validate_dropout
from farvox.types import Shape

COARSEST: dict[str, Shape] = {"tcia": (10, 10, 10), "visceral": (10, 8, 10)}
"""Input size of the dense layers, for each dataset of the paper."""


@dataclass(frozen=True)
class GlobalConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        coarsest: Size of the dense layers' input and output, voxels.
        hidden: Values between the two dense layers.
        dropout: Fraction of values dropped after each dense layer in training.
    """

    in_channels: int
    classes: int
    coarsest: Shape
    hidden: int
    dropout: float


class UNetGlobal(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: GlobalConfig) -> None:
        super().__init__()
        self.config = config
        self.encode_full = conv_batch_norm(config.in_channels, 5)
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_batch_norm(fine, width, stride=2), conv_batch_norm(width, width))
            for fine, width in ((5, 10), (10, 30), (30, 50), (50, 20))
        )
        values = 20 * prod(config.coarsest)
        self.gather = nn.Sequential(nn.Linear(values, config.hidden), nn.Dropout(config.dropout))
        self.spread = nn.Sequential(nn.Linear(config.hidden, values), nn.Dropout(config.dropout))
        # The first unit receives the output of the dense layers and their input, the others the encoder's map of their
        # level.
        self.decoder = nn.ModuleList(
            (
                conv_batch_norm(20 + 20, 20),
                conv_batch_norm(20 + 50, 20),
                conv_batch_norm(20 + 30, 10),
                conv_batch_norm(10 + 10, 8),
                conv_batch_norm(8 + 5, config.classes),
            )
        )
        self.head = nn.Conv3d(config.classes, config.classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_beyond(image, 16)  # batch norm cannot be trained on a single voxel
        x = self.encode_full(x)  # (B, 5, I, J, K)
        maps = [x]
        for convolve in self.encoder:
            x = convolve(x)  # (B, 10, then 30, 50, 20, I / 2^l, J / 2^l, K / 2^l), sizes rounded up
            maps.append(x)
        x = _resize(x, self.config.coarsest).flatten(1)  # (B, 20 · 10³)
        x = self.spread(self.gather(x))
        x = x.unflatten(1, (20, *self.config.coarsest))  # (B, 20, 10, 10, 10)
        for unit, skip in zip(self.decoder, reversed(maps), strict=True):
            i, j, k = skip.shape[2:]
            x = unit(torch.cat((_resize(x, (i, j, k)), skip), 1))  # (B, 20, then 20, 10, 8, classes, i, j, k)
        return crop_to(self.head(x), image.shape[2:])


@register_model(
    "unet-global",
    paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
    parameters=16_286_236,
    reference_arguments={"in_channels": 1, "classes": 9},
    input_requirements="any size (its coarsest map is resized for the dense layers), any channels; whole scans",
    multiply_adds=7_605,
    note="printed: 16 M; coarsest=[9,9,9], the text's: 11,944,816; variant='visceral': 13,081,422 with 8 classes",
)
def build(
    in_channels: int,
    classes: int,
    variant: str = "tcia",
    coarsest: Sequence[int] | None = None,
    hidden: int = 400,
    dropout: float = 0.5,
) -> UNetGlobal:
    """Build the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        variant: "tcia" or "visceral".
        coarsest: Input size (i, j, k) of the dense layers, voxels; None: that of the variant.
        hidden: Values between the two dense layers.
        dropout: Fraction of values dropped after each dense layer in training, from 0 to below 1.

    Raises:
        ModelError: Unknown variant, or a size or fraction out of range.
    """
    if variant not in tuple(COARSEST):  # a list is not hashable
        hint = suggest(str(variant), COARSEST)
        raise ModelError(f"variant={variant!r} for 'unet-global'", allowed="tcia or visceral", hint=hint)
    size = COARSEST[variant] if coarsest is None else coarsest
    if not isinstance(size, (list, tuple)) or len(size) != 3 or any(type(n) is not int or n < 1 for n in size):
        raise ModelError(f"coarsest={coarsest!r} for 'unet-global'", allowed="three positive whole numbers")
    if type(hidden) is not int or hidden < 1:
        raise ModelError(f"hidden={hidden!r} for 'unet-global'", allowed="a positive whole number")
    i, j, k = size
    return UNetGlobal(GlobalConfig(in_channels, classes, (i, j, k), hidden, validate_dropout(dropout, "unet-global")))


def _resize(x: torch.Tensor, size: Shape) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="trilinear", align_corners=False)
