"""OBELISK, the conference networks: one huge sparse kernel, then 1×1 layers; every point is answered on its own.

Heinrich, Oktay and Bouteldja, "OBELISK - One Kernel to Solve Nearly Everything: Unified 3D Binary Convolutions for
Image Analysis", MIDL 2018. The rows of its Table 1 are built here: pairs of offsets with a dense or a plain classifier,
single offsets ("unary"), and random offsets that stay as drawn.

As in the published weights and unlike the table's counts, the last layer has a bias and batch norm has scale and
shift: 131,464 trainable values for the printed 129,536. The paper smooths its scans beforehand (average pooling of 5,
5 and 3 voxels in its code, "sigma = 1.5" in its text); here the network does, so that a scan and its network cannot be
parted. The published code answers on a quarter of the size and enlarges twice by two; the paper says stride 2, which
is the default. Enlarging goes by steps of two for every stride.
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
"""Grid points read at a time in inference: 128 MB for the 256 features of each."""


@dataclass(frozen=True)
class PointConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Classes of the answer, background included.
        offsets: Entries of the kernel, each one offset or a pair.
        pairs: Whether each entry is a pair of offsets, first reading minus second.
        trainable: Whether offsets are learned.
        classifier: "dense" or "mlp".
        smoothing: Sizes of the average poolings that smooth the image first, voxels, odd.
        stride: Voxels along each axis between answers, 1, 2 or 4; what lies between is interpolated.
        compat: "none", or "published" for weights trained by the authors: ±1 on the centres of corner voxels.
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
        # Dense: each layer adds 32 features to those before it. Batch norm follows the joining, not the layer.
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

        In inference it goes slab by slab, so that memory is that of the image and the answer.

        Args:
            image: (B, in_channels, I, J, K).

        Returns:
            (B, classes, I', J', K'), sizes divided by the stride, rounded up; 2 × 1 × 1 where that is one point, as
            batch norm cannot train on one.
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
        """The same network, sharing all weights, whose own grid has another stride: 1, 2 or 4."""
        other = copy(self)
        other.config = replace(self.config, stride=stride)
        return other

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """What is done once for each image: smoothing; (B, in_channels, I, J, K) → the same."""
        for size in self.config.smoothing:
            image = box_smooth(image, size)
        return image

    def forward_points(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Logits at points anywhere in the image; those of `forward` where a point is one of its grid.

        Args:
            prepared: (B, in_channels, I, J, K) from `prepare`.
            points: (B, S, 3), −1 to +1 over the image along axes I, J, K, outer faces at ±1.

        Returns:
            (B, classes, S).
        """
        return self._classify_points(self._read(prepared, points))

    def forward_points_batch(
        self,
        prepared: Sequence[torch.Tensor],
        points: Sequence[torch.Tensor],
        offset_transforms: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Logits at points of several images together, so that batch norm sees them as one batch.

        Args:
            prepared: An image (1, in_channels, I, J, K) each, from `prepare`; sizes may differ.
            points: (1, S, 3) each, as for `at`.
            offset_transforms: (1, S, 3, 3) each: by what the offsets of each point are multiplied, as if the image were turned
                around it.

        Returns:
            (1, classes, sum of all S), image after image.
        """
        turned = offset_transforms if offset_transforms is not None else [None] * len(points)
        return self._classify_points(
            torch.cat([self._read(*part) for part in zip(prepared, points, turned, strict=True)], 2)
        )

    def point_features(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, (B, 256, S), or 128 with the plain classifier; arguments as of `at`."""
        return self._hidden_features(self._read(prepared, points))

    def _read(
        self, prepared: torch.Tensor, points: torch.Tensor, offset_transforms: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The sparse kernel's answers (B, 256, S) at points."""
        weight, offsets = self.obelisk.weight.to(prepared.dtype), self.obelisk.offsets
        if self.config.compat == "published":
            # An offset of 1 is (n - 1) / 2 voxels there, and n / 2 for points.
            offsets = offsets * offsets.new_tensor([(size - 1) / size for size in prepared.shape[2:]])
        return sparse_conv(
            prepared, offsets, weight, points=points, offset_transforms=offset_transforms, groups=self.obelisk.groups
        )

    def _forward_slab(self, prepared: torch.Tensor, shape: Shape, start: int, stop: int) -> torch.Tensor:
        """Logits (B, classes, stop - start, J', K') of a slab along the grid's first axis."""
        corners = self.config.compat == "published"
        read = self.obelisk(prepared, SampleGrid(shape, align_corners=corners, start=start, stop=stop))
        return self._classify_points(read.flatten(2)).unflatten(2, read.shape[2:])

    def _needs_gradients(self) -> bool:
        return self.training or torch.is_grad_enabled()

    def _classify_points(self, read: torch.Tensor) -> torch.Tensor:
        """(B, 256, S) → logits (B, classes, S)."""
        layers = [self.norm, self.reduce, *self.grow, *self.grow_norms, self.head]
        if can_fuse(read, *layers, *([] if self.hidden is None else [self.hidden])):
            return pointwise_chain(read, self._steps())
        return self.head(self._hidden_features(read))  # (B, classes, S)

    def _hidden_features(self, read: torch.Tensor) -> torch.Tensor:
        """(B, 256, S) → what the last layer sees."""
        x = F.relu(self.norm(read))  # (B, 256, S)
        x = self.reduce(x)  # (B, 128, S)
        if self.hidden is not None:
            return self.hidden(x)
        normed = x
        for layer, norm in zip(self.grow, self.grow_norms, strict=True):
            x = torch.cat((x, F.relu(layer(normed))), 1)  # (B, 160, then 192, 224, 256, S)
            normed = norm(x)
        return normed

    def _steps(self) -> list[PointwiseLayer]:
        """The same layers with batch norm folded into them."""
        plain = 0.0  # slope of a ReLU
        head_bias: Any = self.head.bias
        steps = [PointwiseLayer(*batch_norm_scale_shift(self.norm), slope=plain)]
        reduce = fuse_norm_into_previous(self.reduce[1], _matrix(self.reduce[0]))
        if self.hidden is not None:
            hidden = fuse_norm_into_previous(self.hidden[2], _matrix(self.hidden[1]))
            steps += [PointwiseLayer(*reduce, slope=plain), PointwiseLayer(*hidden, slope=plain)]
            return [*steps, PointwiseLayer(_matrix(self.head), head_bias)]
        steps.append(PointwiseLayer(*reduce))
        behind: Any = None
        for layer, norm in zip(self.grow, self.grow_norms, strict=True):
            weight = _matrix(layer)
            folded = (weight, weight.new_zeros(len(weight))) if behind is None else fuse_norm_into_next(behind, weight)
            steps.append(PointwiseLayer(*folded, slope=plain, concatenate=True))
            behind = norm
        return [*steps, PointwiseLayer(*fuse_norm_into_next(behind, _matrix(self.head), head_bias))]


_PAPER = "Heinrich et al. 2018 (OBELISK, MIDL)"
_INPUT = "any size, any channels; offsets are fractions of the image size: whole scans, or patches of one size"
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
        ModelError: An option that cannot work.
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
    note="122,368 by the paper's count; three 1×1 layers take the place of the dense ones",
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
    note="126,464 by the paper's count; single offsets: what pairs are worth",
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
    note="123,392 by the paper's count; offsets stay as drawn: what learning them is worth",
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
