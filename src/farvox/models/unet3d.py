"""A plain 3D U-Net: with four levels the default, with five levels of the size in the Distill DSM paper.

After Çiçek, Abdulkadir, Lienkamp, Brox and Ronneberger, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse
Annotation", MICCAI 2016, with instance norm, leaky ReLU and strided convolutions as in Isensee et al., "nnU-Net",
Nature Methods 2021. Maps are upsampled by repeating voxels after a 1×1×1 convolution: on a CPU a training step is about
10 % faster than with transposed convolutions, and the following 3×3×3 convolutions smooth the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import crop_to, double_conv, pad_to_multiple
from farvox.errors import ModelError
from farvox.models.registry import register_model
from farvox.types import Shape

_WIDTHS = (16, 32, 64, 128, 192)


@dataclass(frozen=True)
class UNet3dConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels at each level, finest first.
        strides: Stride (i, j, k) from each level to the next, 1 or 2 along each axis.
        kernels: Kernel size (i, j, k) of the convolutions at each level.
    """

    in_channels: int
    classes: int
    widths: tuple[int, ...]
    strides: tuple[Shape, ...]
    kernels: tuple[Shape, ...]

    @property
    def multiple(self) -> Shape:
        """Voxels along each axis per voxel of the coarsest map."""
        i, j, k = (prod(step[axis] for step in self.strides) for axis in range(3))
        return i, j, k


class UNet3d(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    def __init__(self, config: UNet3dConfig) -> None:
        super().__init__()
        self.config = config
        widths, strides, kernels = config.widths, ((1, 1, 1), *config.strides), config.kernels
        inputs = (config.in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(map(double_conv, inputs, widths, kernels, strides))
        # Level l of the decoder concatenates the coarser map, narrowed to widths[l], and the encoder's map of its
        # level.
        self.narrow = nn.ModuleList(nn.Conv3d(coarse, fine, 1, bias=False) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(
            double_conv(2 * width, width, kernel) for width, kernel in zip(widths[:-1], kernels, strict=False)
        )
        self.head = nn.Conv3d(widths[0], config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        x = pad_to_multiple(image, self.config.multiple, coarsest=2)
        maps = []
        for convolve in self.encoder:
            x = convolve(x)  # (B, widths[l], I / 2^l, J / 2^l, K / 2^l) with the default strides
            maps.append(x)
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(self.narrow[level](x), size=maps[level].shape[2:], mode="nearest")
            x = self.decoder[level](torch.cat((maps[level], x), 1))  # (B, widths[l], ...)
        return crop_to(self.head(x), image.shape[2:])


def plan_options(spacing: Sequence[float], options: Mapping[str, object]) -> dict[str, object]:
    """Strides and kernels that follow the voxel spacing (mm), for four levels unless the options have widths.

    An axis is convolved and halved at a level once its spacing is within a factor of two of the finest.
    """
    planned: dict[str, Any] = {**options, "widths": options.get("widths", (16, 32, 64, 128))}
    current = [float(s) for s in spacing]
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    for _ in planned["widths"]:
        near = [s < 2 * min(current) * 0.999 for s in current]
        kernels.append(tuple(3 if n else 1 for n in near))
        strides.append(tuple(2 if n else 1 for n in near))
        current = [s * 2 if n else s for s, n in zip(current, near, strict=True)]
    return {**planned, "strides": tuple(strides[:-1]), "kernels": tuple(kernels), **options}


@register_model(
    "unet3d",
    paper="Çiçek et al. 2016, doi:10.1007/978-3-319-46723-8_49; size of Maheshwari et al. 2021 (Distill DSM)",
    parameters=4_339_059,
    reference_arguments={"in_channels": 4, "classes": 3},
    input_requirements="any size (padded inside to a multiple of 16), any channels",
    multiply_adds=57_163,
    note="the Distill DSM paper prints 4,288,208 and no layout; the default recipe takes widths=[16,32,64,128] "
    "(1,325,906 with 1 channel and 2 classes) and strides that follow the spacing",
    plan_options=plan_options,
)
def build(
    in_channels: int,
    classes: int,
    widths: Sequence[int] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    kernels: Sequence[Sequence[int]] | None = None,
) -> UNet3d:
    """Build the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels at each level, finest first; one level or more. None means 16, 32, 64, 128, 192, or as many of
            them as fit the strides. With all five it has 4,339,059 parameters for 4 channels and 3 classes;
            Maheshwari et al. (Distill DSM, MIDL 2021, Table 1) print 4,288,208 and no layout.
        strides: Stride (i, j, k) from each level to the next, 1 or 2 along each axis; None: (2, 2, 2) everywhere.
            Scans with thick slices need (2, 2, 1) first.
        kernels: Kernel size (i, j, k) at each level, 1, 3 or 5 along each axis; None: (3, 3, 3) everywhere.
            Levels with thick slices need (3, 3, 1).

    Raises:
        ModelError: Widths below 1, or strides or kernels of the wrong number or size.
    """
    if widths is None:
        levels_of_strides = strides if isinstance(strides, (list, tuple)) and strides else [None] * 4
        widths = _WIDTHS[: len(levels_of_strides) + 1]
    if not _whole_numbers(widths) or not widths or min(widths) < 1:
        raise ModelError(f"widths={widths!r} for 'unet3d'", allowed="one positive whole number per level")
    steps, levels = len(widths) - 1, len(widths)
    config = UNet3dConfig(
        in_channels,
        classes,
        tuple(widths),
        _triples("strides", strides if strides is not None else [(2, 2, 2)] * steps, steps, (1, 2)),
        _triples("kernels", kernels if kernels is not None else [(3, 3, 3)] * levels, levels, (1, 3, 5)),
    )
    return UNet3d(config)


def _triples(name: str, values: Sequence[Sequence[int]], count: int, allowed: tuple[int, ...]) -> tuple[Shape, ...]:
    fits = isinstance(values, (list, tuple)) and len(values) == count
    if not fits or not all(
        _whole_numbers(triple) and len(triple) == 3 and set(triple) <= {*allowed} for triple in values
    ):
        shown = ", ".join(map(str, allowed))
        raise ModelError(
            f"{name}={values!r} for 'unet3d'",
            allowed=f"{count} triples (i, j, k) out of {shown}, as many as the widths need",
        )
    return tuple((i, j, k) for i, j, k in values)


def _whole_numbers(values: object) -> bool:
    return isinstance(values, (list, tuple)) and all(type(number) is int for number in values)
