"""The multi-scale U-Net of the OBELISK conference paper: fourteen 3×3×3 convolutions over five levels.

Heinrich, Oktay and Bouteldja, "OBELISK - One Kernel to Solve Nearly Everything: Unified 3D Binary Convolutions for
Image Analysis", MIDL 2018, section 3. The text gives five levels, fourteen convolutions, 8 to 128 channels that double
with each strided convolution, 192 channels at the widest input of the decoder, leaky ReLU 0.1 and 1,250,000
parameters, rounded. Details that it does not give are those of Table 1 of the journal paper
(doi:10.1016/j.media.2019.02.006) on the same network's successor: two convolutions a level but one at full size,
trilinear upsampling, batch norm, narrow last convolutions (half size already at 8 channels, the last two at as many as
there are classes). That gives 1,313,576 with 8 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import conv_batch_norm, crop_to, pad_beyond
from farvox.errors import ModelError
from farvox.models.registry import register_model


@dataclass(frozen=True)
class MultiscaleConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels at each level, finest first; each level halves the size of the one before.
    """

    in_channels: int
    classes: int
    widths: tuple[int, ...]


class UNetMultiscale(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: MultiscaleConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encode_full = conv_batch_norm(config.in_channels, widths[0])
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_batch_norm(fine, width, stride=2), conv_batch_norm(width, width))
            for fine, width in pairwise(widths)
        )
        # Each unit receives the upsampled coarser map and the encoder's map of its level.
        narrowed = (*widths[-2:1:-1], widths[0])  # 64, 32, 8
        self.decoder = nn.ModuleList(
            conv_batch_norm(coarser + skip, width)
            for coarser, skip, width in zip((widths[-1], *narrowed[:-1]), widths[-2:0:-1], narrowed, strict=True)
        )
        self.decode_full = conv_batch_norm(narrowed[-1] + widths[0], config.classes)
        self.head = nn.Conv3d(config.classes, config.classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_beyond(image, 2 ** len(self.encoder))  # batch norm cannot be trained on a single voxel
        x = self.encode_full(x)  # (B, 8, I, J, K)
        maps = [x]
        for convolve in self.encoder:
            x = convolve(x)  # (B, widths[l], I / 2^l, J / 2^l, K / 2^l), sizes rounded up
            maps.append(x)
        for unit, skip in zip((*self.decoder, self.decode_full), maps[-2::-1], strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = unit(torch.cat((x, skip), 1))  # (B, 64, then 32, 8, classes, size of skip)
        return crop_to(self.head(x), image.shape[2:])


@register_model(
    "unet-multiscale",
    paper="Heinrich et al. 2018 (OBELISK, MIDL)",
    parameters=1_313_576,
    reference_arguments={"in_channels": 1, "classes": 8},
    input_requirements="any size, any channels",
    multiply_adds=11_070,
    note="printed: 1,250,000, rounded; the text leaves details open, see the file",
)
def build(in_channels: int, classes: int, widths: Sequence[int] = (8, 16, 32, 64, 128)) -> UNetMultiscale:
    """Build the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels at each level, finest first, two levels or more; the paper's are 8 to 128.

    Raises:
        ModelError: Fewer than two widths, or widths below 1.
    """
    if not isinstance(widths, (list, tuple)) or len(widths) < 2 or any(type(w) is not int or w < 1 for w in widths):
        raise ModelError(f"widths={widths!r} for 'unet-multiscale'", allowed="two or more positive whole numbers")
    return UNetMultiscale(MultiscaleConfig(in_channels, classes, tuple(widths)))
