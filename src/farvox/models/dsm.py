"""A 2D U-Net that shifts some features to neighbouring slices, unchanged or after a convolution (distilled).

Maheshwari, Goel, Sethuraman and Sheet, "Distill DSM: Computationally Efficient Method for Segmentation of Medical
Imaging Volumes", MIDL 2021. The 2D U-Net is that of `unet2d` (1,082,211 parameters with 4 channels and 3
classes). "dsm-residual" has no further parameters. "dsm-distill" has 1,116,059, 1,217,299 and 1,621,955 at α = 1/4, 1/2
and 1, where the paper prints 1,115,606, 1,216,266 and 1,619,330: at most 0.2 % less; no layout that we
tried has exactly all three.

Departures: the text puts a module after every convolution, which with 3×3 kernels would take far more parameters than
it prints; here one follows the first of each pair (`position="each"` is the text). The initialisation of the
distillation and the number of channels that residual modules shift are ours; see `farvox.blocks.depth_shift`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import DistillShift, ResidualShift, crop_to, pad_to_multiple
from farvox.errors import ModelError, suggest
from farvox.models.registry import register_model

_WIDTHS = (16, 32, 64, 128, 128)
_DECODER_WIDTHS = (16, 16, 32, 64)
"""Output channels of each level of the decoder, finest first."""
POSITIONS = ("first", "each")


@dataclass(frozen=True)
class DsmConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        kind: "residual" or "distill".
        alpha: Fraction of each map's channels that take part, 1/4 to 1.
        kernel: Odd kernel size of the distilling convolutions.
        position: "first": after the first convolution of each pair; "each": after both.
    """

    in_channels: int
    classes: int
    kind: str
    alpha: float
    kernel: int
    position: str


class DepthShiftUNet(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K).

    The output of slice k depends on slices k − 9 … k + 9 with position "first", and on twice as many with "each".
    """

    def __init__(self, config: DsmConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.ModuleList(
            _DoubleConv(config, inputs, width, width)
            for inputs, width in zip((config.in_channels, *_WIDTHS), _WIDTHS, strict=False)
        )
        below = (*_DECODER_WIDTHS[1:], _WIDTHS[-1])
        self.decoder = nn.ModuleList(
            _DoubleConv(config, skip + coarse, (skip + coarse) // 2, width)
            for skip, coarse, width in zip(_WIDTHS, below, _DECODER_WIDTHS, strict=False)
        )
        self.head = nn.Conv2d(_DECODER_WIDTHS[0], config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        batch, _, i, j, slices = image.shape
        x = image.movedim(-1, 1).flatten(0, 1)  # (B·K, C, I, J)
        x = pad_to_multiple(x, (16, 16), coarsest=2)
        maps = []
        for level, convolve in enumerate(self.encoder):
            x = convolve(F.max_pool2d(x, 2) if level else x, slices)  # (B·K, widths[l], I / 2^l, J / 2^l)
            maps.append(x)
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(x, size=maps[level].shape[2:], mode="bilinear", align_corners=True)
            x = self.decoder[level](torch.cat((maps[level], x), 1), slices)
        logits = crop_to(self.head(x), (i, j))
        return logits.unflatten(0, (batch, slices)).movedim(1, -1)


@register_model(
    "dsm-residual",
    paper="Maheshwari et al. 2021 (Distill DSM, MIDL), after Lin et al. 2019 (TSM)",
    parameters=1_082_211,
    reference_arguments={"in_channels": 4, "classes": 3},
    input_requirements="any size (slices padded inside to a multiple of 16), any channels; K as deep as can be",
    multiply_adds=38_640,
    note="unet2d that adds features of neighbouring slices; K should be the axis of thick slices",
)
def build_residual(in_channels: int, classes: int, alpha: float = 0.5, position: str = "first") -> DepthShiftUNet:
    """Build "dsm-residual"; see `DsmConfig`.

    Raises:
        ModelError: Unknown position, or an alpha that is too small for 16 channels.
    """
    return _build(DsmConfig(in_channels, classes, "residual", alpha, 1, position))


@register_model(
    "dsm-distill",
    paper="Maheshwari et al. 2021 (Distill DSM, MIDL)",
    parameters=1_217_299,
    reference_arguments={"in_channels": 4, "classes": 3},
    input_requirements="any size (slices padded inside to a multiple of 16), any channels; K as deep as can be",
    multiply_adds=43_392,
    note="alpha=0.25: 1,116,059; alpha=1: 1,621,955 (printed: 1,115,606, 1,216,266, 1,619,330); K: thick slices",
)
def build_distill(
    in_channels: int, classes: int, alpha: float = 0.5, kernel: int = 3, position: str = "first"
) -> DepthShiftUNet:
    """Build "dsm-distill"; see `DsmConfig`.

    Raises:
        ModelError: Unknown position, an even kernel, or an alpha that is too small for 16 channels.
    """
    return _build(DsmConfig(in_channels, classes, "distill", alpha, kernel, position))


def _build(config: DsmConfig) -> DepthShiftUNet:
    if config.position not in POSITIONS:
        raise ModelError(
            f"position={config.position!r} for 'dsm-{config.kind}'",
            allowed=" or ".join(POSITIONS),
            hint=suggest(str(config.position), POSITIONS),
        )
    return DepthShiftUNet(config)


class _DoubleConv(nn.Module):
    """Convolution, shift, norm, ReLU, twice; the second shift only if every convolution has one."""

    def __init__(self, config: DsmConfig, in_channels: int, middle: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, middle, 3, padding=1)
        self.first_shift = _shift(config, middle)
        self.first_norm = nn.BatchNorm2d(middle)
        self.second = nn.Conv2d(middle, out_channels, 3, padding=1)
        self.second_shift = _shift(config, out_channels) if config.position == "each" else None
        self.second_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor, slices: int) -> torch.Tensor:
        """(B·slices, in_channels, I, J) → (B·slices, out_channels, I, J)."""
        x = F.relu(self.first_norm(self.first_shift(self.first(x), slices)), inplace=True)
        x = self.second(x)
        if self.second_shift is not None:
            x = self.second_shift(x, slices)
        return F.relu(self.second_norm(x), inplace=True)


def _shift(config: DsmConfig, channels: int) -> nn.Module:
    if config.kind == "residual":
        return ResidualShift(channels, config.alpha)
    return DistillShift(channels, config.alpha, config.kernel)
