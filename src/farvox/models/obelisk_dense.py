"""OBELISK, the conference networks: one very large sparse kernel, then 1×1 layers; each point is predicted separately.

Heinrich, Oktay and Bouteldja, "OBELISK - One Kernel to Solve Nearly Everything: Unified 3D Binary Convolutions for
Image Analysis", MIDL 2018. The networks of its Table 1: pairs of offsets with a dense or a plain classifier,
single offsets ("unary"), and fixed random offsets.

As in the published weights and unlike the table's counts, the last layer has a bias and batch norm has scale and
shift: 131,464 trainable values for the printed 129,536. The paper smooths its scans beforehand (average pooling of 5,
5 and 3 voxels in its code, "sigma = 1.5" in its text); here smoothing is part of the network. The published code
computes logits at a quarter of the size and upsamples twice by two; the paper says stride 2, which is the default.
Upsampling is by steps of two for every stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import (
    Obelisk,
    batch_norm_scale_shift,
    box_smooth,
    can_fuse,
    fuse_norm_into_next,
    fuse_norm_into_previous,
)
from farvox.errors import ModelError, suggest
from farvox.models.registry import register_model
from farvox.ops import PointwiseLayer, SampleGrid, pointwise_chain, sparse_conv
from farvox.types import Shape

_SLAB_POINTS = 1 << 17
"""Grid points sampled at a time in inference: 128 MB for the 256 features of each."""


@dataclass(frozen=True)
class PointConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        offsets: Entries of the kernel, each one offset or a pair.
        pairs: Whether each entry is a pair of offsets: the first sample minus the second.
        trainable: Whether offsets are learned.
        classifier: "dense" or "mlp".
        smoothing: Sizes of the average poolings that smooth the image first, voxels, odd.
        stride: Voxels between predicted points along each axis, 1, 2 or 4; logits between them are interpolated.
        compat: "none", or "published" for weights trained by the authors: ±1 at the centres of the corner voxels.
    """

    in_channels: int
    classes: int
    offsets: int
    pairs: bool
    trainable: bool
    classifier: str
    smoothing: tuple[int, ...]
    stride: int
    compat: str


class ObeliskPoints(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K); or logits at any points."""

    size_dependent = True  # offsets are fractions of the image size

    def __init__(self, config: PointConfig) -> None:
        super().__init__()
        self.config = config
        self.obelisk = Obelisk(
            config.in_channels, 256, config.offsets, pairs=config.pairs, groups=4, trainable=config.trainable
        )
        self.norm = nn.BatchNorm1d(256)
        self.reduce = nn.Sequential(nn.Conv1d(256, 128, 1, bias=False), nn.BatchNorm1d(128))
        widths = (128, 160, 192, 224) if config.classifier == "dense" else ()
        # Dense: each layer adds 32 features to those before it. Batch norm follows the concatenation, not the layer.
        self.grow = nn.ModuleList(nn.Conv1d(width, 32, 1, bias=False) for width in widths)
        self.grow_norms = nn.ModuleList(nn.BatchNorm1d(width + 32) for width in widths)
        self.hidden = None
        if config.classifier == "mlp":
            layer = nn.Conv1d(128, 128, 1, bias=False)
            self.hidden = nn.Sequential(nn.ReLU(), layer, nn.BatchNorm1d(128), nn.ReLU())
        self.head = nn.Conv1d(256 if config.classifier == "dense" else 128, config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        logits = self.logits_on_grid(image)  # (B, classes, I / stride, J / stride, K / stride)
        for step in (2, 1) if self.config.stride == 4 else (1,):
            size = _reduced(image.shape[2:], step)
            if logits.shape[2:] != size:
                logits = F.interpolate(logits, size=size, mode="trilinear", align_corners=False)
        return logits

    def logits_on_grid(self, image: torch.Tensor) -> torch.Tensor:
        """Logits on the grid of the stride alone, half-pixel centres (corner centres with compat="published").

        In inference it works slab by slab, so that it needs little memory besides the image and the logits.

        Args:
            image: (B, in_channels, I, J, K).

        Returns:
            (B, classes, I', J', K'), sizes divided by the stride, rounded up; 2 × 1 × 1 instead of one point,
            because batch norm cannot be trained on one.
        """
        prepared = self.prepare(image)
        i, j, k = _reduced(image.shape[2:], self.config.stride)
        shape = (max(i, 2) if j * k == 1 else i, j, k)
        if self._needs_gradients():
            return self._forward_slab(prepared, shape, 0, shape[0])
        thick = max(1, _SLAB_POINTS // (j * k))
        logits = prepared.new_empty(prepared.shape[0], self.config.classes, *shape)
        for start in range(0, shape[0], thick):
            stop = min(start + thick, shape[0])
            logits[:, :, start:stop] = self._forward_slab(prepared, shape, start, stop)
        return logits

    def with_stride(self, stride: int) -> ObeliskPoints:
        """The same network with the same weights, whose grid has another stride: 1, 2 or 4."""
        other = copy(self)
        other.config = replace(self.config, stride=stride)
        return other

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Smooth an image, once for all its points; (B, in_channels, I, J, K) → the same shape."""
        for size in self.config.smoothing:
            image = box_smooth(image, size)
        return image

    def forward_points(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Logits at any points of the image; equal to those of `forward` at the points of its grid.

        Args:
            prepared: (B, in_channels, I, J, K) from `prepare`.
            points: (B, S, 3), −1 to +1 over the image along axes I, J, K, outer faces at ±1.

        Returns:
            (B, classes, S).
        """
        return self._classify_points(self._sample_kernel(prepared, points))

    def forward_points_batch(
        self,
        prepared: Sequence[torch.Tensor],
        points: Sequence[torch.Tensor],
        offset_transforms: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Logits at points of several images, which are one batch for batch norm.

        Args:
            prepared: Images (1, in_channels, I, J, K) from `prepare`; sizes may differ.
            points: (1, S, 3) for each image, as for `forward_points`.
            offset_transforms: (1, S, 3, 3) for each image: matrices that multiply the offsets of each point, as if the
                image were transformed around it.

        Returns:
            (1, classes, sum of all S), image after image.
        """
        transforms = offset_transforms if offset_transforms is not None else [None] * len(points)
        return self._classify_points(
            torch.cat([self._sample_kernel(*part) for part in zip(prepared, points, transforms, strict=True)], 2)
        )

    def point_features(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Inputs of the last layer, (B, 256, S), or 128 with the plain classifier; arguments as in `forward_points`."""
        return self._hidden_features(self._sample_kernel(prepared, points))

    def _sample_kernel(
        self, prepared: torch.Tensor, points: torch.Tensor, offset_transforms: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Outputs (B, 256, S) of the sparse kernel at points."""
        weight, offsets = self.obelisk.weight.to(prepared.dtype), self.obelisk.offsets
        if self.config.compat == "published":
            # An offset of 1 means (n - 1) / 2 voxels in the published code, and n / 2 here.
            offsets = offsets * offsets.new_tensor([(size - 1) / size for size in prepared.shape[2:]])
        return sparse_conv(
            prepared, offsets, weight, points=points, offset_transforms=offset_transforms, groups=self.obelisk.groups
        )

    def _forward_slab(self, prepared: torch.Tensor, shape: Shape, start: int, stop: int) -> torch.Tensor:
        """Logits (B, classes, stop - start, J', K') of a slab along the grid's first axis."""
        corners = self.config.compat == "published"
        sampled = self.obelisk(prepared, SampleGrid(shape, align_corners=corners, start=start, stop=stop))
        return self._classify_points(sampled.flatten(2)).unflatten(2, sampled.shape[2:])

    def _needs_gradients(self) -> bool:
        return self.training or torch.is_grad_enabled()

    def _classify_points(self, sampled: torch.Tensor) -> torch.Tensor:
        """(B, 256, S) → logits (B, classes, S)."""
        layers = [self.norm, self.reduce, *self.grow, *self.grow_norms, self.head]
        if can_fuse(sampled, *layers, *([] if self.hidden is None else [self.hidden])):
            return pointwise_chain(sampled, self._fused_layers())
        return self.head(self._hidden_features(sampled))  # (B, classes, S)

    def _hidden_features(self, sampled: torch.Tensor) -> torch.Tensor:
        """(B, 256, S) → inputs of the last layer."""
        x = F.relu(self.norm(sampled))  # (B, 256, S)
        x = self.reduce(x)  # (B, 128, S)
        if self.hidden is not None:
            return self.hidden(x)
        normed = x
        for layer, norm in zip(self.grow, self.grow_norms, strict=True):
            x = torch.cat((x, F.relu(layer(normed))), 1)  # (B, 160, then 192, 224, 256, S)
            normed = norm(x)
        return normed

    def _fused_layers(self) -> list[PointwiseLayer]:
        """The same layers with batch norm fused into them."""
        relu = 0.0  # slope below zero
        head_bias: Any = self.head.bias
        layers = [PointwiseLayer(*batch_norm_scale_shift(self.norm), slope=relu)]
        reduce = fuse_norm_into_previous(self.reduce[1], _matrix(self.reduce[0]))
        if self.hidden is not None:
            hidden = fuse_norm_into_previous(self.hidden[2], _matrix(self.hidden[1]))
            layers += [PointwiseLayer(*reduce, slope=relu), PointwiseLayer(*hidden, slope=relu)]
            return [*layers, PointwiseLayer(_matrix(self.head), head_bias)]
        layers.append(PointwiseLayer(*reduce))
        previous_norm: Any = None
        for layer, norm in zip(self.grow, self.grow_norms, strict=True):
            weight = _matrix(layer)
            fused = (
                (weight, weight.new_zeros(len(weight)))
                if previous_norm is None
                else fuse_norm_into_next(previous_norm, weight)
            )
            layers.append(PointwiseLayer(*fused, slope=relu, concatenate=True))
            previous_norm = norm
        return [*layers, PointwiseLayer(*fuse_norm_into_next(previous_norm, _matrix(self.head), head_bias))]


_PAPER = "Heinrich et al. 2018 (OBELISK, MIDL)"
_INPUT = "any size, any channels; offsets are fractions of its size: whole scans, or patches of one size"
_ARGUMENTS = {"in_channels": 1, "classes": 8}


def _build(
    name: str,
    in_channels: int,
    classes: int,
    offsets: int = 1024,
    smoothing: Sequence[int] = (5, 5, 3),
    stride: int = 2,
    compat: str = "none",
) -> ObeliskPoints:
    """Build one of the four networks; see `PointConfig`.

    Raises:
        ModelError: An option out of range.
    """
    kinds = ("none", "published")
    if compat not in kinds:
        raise ModelError(
            f"compat={compat!r} for '{name}'", allowed="none or published", hint=suggest(str(compat), kinds)
        )
    if type(stride) is not int or stride not in (1, 2, 4):
        raise ModelError(f"stride={stride!r} for '{name}'", allowed="1, 2 or 4")
    if not isinstance(smoothing, (list, tuple)) or any(type(n) is not int or n < 1 or n % 2 == 0 for n in smoothing):
        raise ModelError(f"smoothing={smoothing!r} for '{name}'", allowed="a list of odd sizes, [] for none")
    if type(offsets) is not int or offsets < 1:
        raise ModelError(f"offsets={offsets!r} for '{name}'", allowed="a positive whole number")
    config = PointConfig(
        in_channels,
        classes,
        offsets,
        pairs=name != "obelisk-unary",
        trainable=name != "obelisk-random",
        classifier="mlp" if name == "obelisk-mlp" else "dense",
        smoothing=tuple(smoothing),
        stride=stride,
        compat=compat,
    )
    return ObeliskPoints(config)


build_dense = register_model(
    "obelisk-dense",
    paper=_PAPER,
    parameters=131_464,
    reference_arguments=_ARGUMENTS,
    input_requirements=_INPUT,
    multiply_adds=17_408,
    note="129,536 by the paper's count, without batch norm's scale and shift and the last bias",
    points=True,
    builder="farvox.models.obelisk_dense:build_dense",
)(partial(_build, "obelisk-dense"))
build_mlp = register_model(
    "obelisk-mlp",
    paper=_PAPER,
    parameters=122_888,
    reference_arguments=_ARGUMENTS,
    input_requirements=_INPUT,
    multiply_adds=16_512,
    note="122,368 by the paper's count; three 1×1 layers instead of the dense ones",
    points=True,
    builder="farvox.models.obelisk_dense:build_mlp",
)(partial(_build, "obelisk-mlp"))
build_unary = register_model(
    "obelisk-unary",
    paper=_PAPER,
    parameters=128_392,
    reference_arguments=_ARGUMENTS,
    input_requirements=_INPUT,
    multiply_adds=16_384,
    note="126,464 by the paper's count; single offsets instead of pairs",
    points=True,
    builder="farvox.models.obelisk_dense:build_unary",
)(partial(_build, "obelisk-unary"))
build_random = register_model(
    "obelisk-random",
    paper=_PAPER,
    parameters=125_320,
    reference_arguments=_ARGUMENTS,
    input_requirements=_INPUT,
    multiply_adds=17_408,
    note="123,392 by the paper's count; fixed random offsets, which are not learned",
    points=True,
    builder="farvox.models.obelisk_dense:build_random",
)(partial(_build, "obelisk-random"))


def _reduced(shape: Sequence[int], step: int) -> Shape:
    i, j, k = (-(-size // step) for size in shape)
    return i, j, k


def _matrix(layer: Any) -> torch.Tensor:
    """(O, C) weights of a 1×1 convolution."""
    matrix: torch.Tensor = layer.weight.flatten(1)
    return matrix
