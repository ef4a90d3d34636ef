"""The prostate paper's DeepLabv3+: a 2D network with neighbouring slices as channels.

Eschen, "Semantic Segmentation of the Prostate in 3D MRI", Technical University of Denmark 2018, section 4.3 and Figure
2, after Chen, Zhu, Papandreou, Schroff and Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", ECCV 2018, in its Keras form. Every number agrees with that form at output stride 8: the units of the
middle flow at rate 2, the last two units at 2 and 4, the pyramid at 12, 24 and 36. Keras counts four values for each
channel of a batch norm; counted this way, one output has 41,253,073 values with 3 input channels and 41,255,953 with
the 13 slices of the text. Table 1 prints 41,253,023, which no whole number of input channels gives (each takes 288);
this follows the text.

Departures:
* Softmax over two classes or more where the paper has one sigmoid output.
* The paper segments the middle one of 13 slices. Here every slice along K of a patch is segmented, from the slices
  around it; beyond both ends the last slice is repeated, because zero is a normal grey value of normalised intensities,
  which would change the statistics of batch norm.
* Maps have 8m + 1 pixels along each axis, so that strided convolutions and bilinear upsampling with aligned corners do
  not shift pixels at any size; the paper has 256×256.
* Weights are initialised at random; those of Chen et al. are from ImageNet, which does not have 13 channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import SeparableConv2d, XceptionUnit, crop_to
from farvox.errors import ModelError
from farvox.models.registry import register_model, validate_dropout

_STRIDE = 8
_PYRAMID_RATES = (12, 24, 36)


@dataclass(frozen=True)
class DeepLabConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        slices: Neighbouring slices that enter together, odd.
        middle_units: Units of the middle flow.
        width: Factor on the channels of every layer.
        dropout: Fraction of values set to zero after the pyramid in training.
    """

    in_channels: int
    classes: int
    slices: int
    middle_units: int
    width: float
    dropout: float

    def channels(self, published: int) -> int:
        """Channels of a layer that has `published` of them at full width."""
        return max(1, round(self.width * published))


class DeepLab(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K), from `slices` slices each."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        # Entry flow, (B·K, C, I, J) → I / 8.
        self.stem = nn.Sequential(
            *_conv(config.in_channels * config.slices, c(32), kernel=3, stride=2),
            *_conv(c(32), c(64), kernel=3),
        )
        self.entry = nn.ModuleList(
            [
                XceptionUnit(c(64), (c(128),) * 3, stride=2),
                XceptionUnit(c(128), (c(256),) * 3, stride=2),
                XceptionUnit(c(256), (c(728),) * 3),
            ]
        )
        self.middle = nn.ModuleList(
            XceptionUnit(c(728), (c(728),) * 3, rate=2, shortcut="identity") for _ in range(config.middle_units)
        )
        self.exit = nn.ModuleList(
            [
                XceptionUnit(c(728), (c(728), c(1024), c(1024)), rate=2),
                XceptionUnit(c(1024), (c(1536), c(1536), c(2048)), rate=4, shortcut=None, activate="after"),
            ]
        )
        self.pooled = _PooledImage(c(2048), c(256))
        self.pyramid = nn.ModuleList(
            [
                _conv(c(2048), c(256)),
                *(SeparableConv2d(c(2048), c(256), rate=rate, activate="after") for rate in _PYRAMID_RATES),
            ]
        )
        self.gather = _conv(5 * c(256), c(256)).append(nn.Dropout(config.dropout))
        self.skip = _conv(c(256), c(48))
        self.decoder = nn.Sequential(
            SeparableConv2d(c(256) + c(48), c(256), activate="after"),
            SeparableConv2d(c(256), c(256), activate="after"),
            nn.Conv2d(c(256), config.classes, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        batch, _, i, j, k = image.shape
        x = self._with_neighbours(image)  # (B·K, in_channels · slices, I, J)
        height, width = (_STRIDE * max(1, -(-(n - 1) // _STRIDE)) + 1 for n in (i, j))
        x = F.pad(x, (0, width - j, 0, height - i), mode="replicate")
        x, _ = self.entry[0](self.stem(x))  # (B·K, 128, I / 4, J / 4)
        x, fine = self.entry[1](x)  # (B·K, 256, I / 8, J / 8), and the map of I / 4 for the decoder
        x, _ = self.entry[2](x)
        for unit in (*self.middle, *self.exit):
            x, _ = unit(x)  # (B·K, 2048, I / 8, J / 8) after the last
        x = self.gather(torch.cat([self.pooled(x), *(branch(x) for branch in self.pyramid)], 1))
        x = F.interpolate(x, fine.shape[2:], mode="bilinear", align_corners=True)
        x = self.decoder(torch.cat((x, self.skip(fine)), 1))  # (B·K, classes, I / 4, J / 4)
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=True)
        return crop_to(x, (i, j)).unflatten(0, (batch, k)).movedim(1, -1)

    def _with_neighbours(self, image: torch.Tensor) -> torch.Tensor:
        neighbours = self.config.slices // 2
        padded = F.pad(image, (neighbours, neighbours, 0, 0, 0, 0), mode="replicate")
        stacks = padded.unfold(-1, self.config.slices, 1)  # (B, C, I, J, K, slices)
        return stacks.permute(0, 4, 1, 5, 2, 3).flatten(2, 3).flatten(0, 1)


class _PooledImage(nn.Module):
    """Mean of the whole map after a 1×1 convolution, at every pixel: (B·K, C, I, J) → (B·K, out_channels, I, J)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A single slice has one value per channel and no variance: it is normalised by the running statistics."""
        y = self.conv(x.mean((2, 3), keepdim=True))
        if self.training and len(y) == 1:
            norm = self.norm
            y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        else:
            y = self.norm(y)
        return F.relu(y).expand(-1, -1, *x.shape[2:])


@register_model(
    "prostate-deeplab",
    paper="Eschen 2018 (DTU), after Chen et al. 2018 (DeepLabv3+)",
    parameters=41_053_410,
    dims=2,
    input_requirements="any size, any channels; 13 neighbouring slices along K of each channel enter together",
    multiply_adds=824_187,
    note="41,255,953 by the paper's count: one output, four values for each channel of a batch norm",
)
def build(
    in_channels: int,
    classes: int,
    slices: int = 13,
    middle_units: int = 16,
    width: float = 1.0,
    dropout: float = 0.1,
) -> DeepLab:
    """Build the network.

    Args:
        in_channels: Channels of the image; `slices` times as many enter the first convolution.
        classes: Output classes, background included; 1 gives the paper's single output.
        slices: Neighbouring slices along K that enter together, odd.
        middle_units: Units of the middle flow, 0 or more.
        width: Factor on the channels of every layer, above 0.
        dropout: Fraction of values set to zero after the pyramid in training, 0 to below 1.

    Raises:
        ModelError: An even number of slices, or another value outside its range.
    """
    if type(slices) is not int or slices < 1 or slices % 2 == 0:
        raise ModelError(f"slices={slices!r} for 'prostate-deeplab'", allowed="an odd whole number: 1, 3, 5 …")
    if type(middle_units) is not int or middle_units < 0:
        raise ModelError(f"middle_units={middle_units!r} for 'prostate-deeplab'", allowed="a whole number, 0 or more")
    if type(width) not in (int, float) or not 0 < width <= 4:
        raise ModelError(f"width={width!r} for 'prostate-deeplab'", allowed="above 0, at most 4")
    dropout = validate_dropout(dropout, "prostate-deeplab")
    return DeepLab(DeepLabConfig(in_channels, classes, slices, middle_units, float(width), dropout))


def _conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
