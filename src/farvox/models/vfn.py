"""Volumetric fusion net: a shallow 3D network fuses the outputs of three 2D networks, one per axis.

Xia, Xie, Liu, Zhu, Fishman and Yuille, "Bridging the Gap Between 2D and 3D Organ Segmentation with Volumetric Fusion
Net", MICCAI 2018, doi:10.1007/978-3-030-00937-3_51; a baseline of Maheshwari et al., "Distill DSM", MIDL 2021. The
fusion network receives the image and the class probabilities of the three views; its layers are those of the network
the authors published: three stages down, 16-32-64 wide, three convolutions each and max pooling, one more convolution,
three stages up with 4×4×4 transposed convolutions, and sums instead of concatenations across.

It is trained in two stages: first each 2D network, then, with the 2D networks frozen, norms included, the fusion
network on their outputs. `set_training_progress` chooses the stage; without it everything is trained together.

Departures: the 2D networks are `unet2d`, trained from scratch; the authors used pre-trained ones. The authors split the
training cases so that the fusion network is trained on outputs for held-out cases ("cross-cross-augmentation"); here
both stages use the same cases. Their network ends in a norm and one sigmoid, this one in one logit per class. The
fusion network is initialised to approximately the sum of the views' probabilities, so that a training that ends in the
first stage has a useful output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import crop_to, pad_to_multiple
from farvox.errors import ModelError
from farvox.models import unet2d
from farvox.models.registry import register_model

_VOTE = 2.0
"""Initial weight of a view's probability in the logits: if all three agree, the probability is 1 / (1 + e^−6)."""


@dataclass(frozen=True)
class VfnConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        widths: Channels of the fusion network's stages, finest first.
        views_share: Fraction of the training for the 2D networks, 0 to 1.
    """

    in_channels: int
    classes: int
    widths: tuple[int, ...]
    views_share: float


class VolumetricFusionNet(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K).

    In the first stage of the training, the output is the tuple of the three views' logits.
    """

    def __init__(self, config: VfnConfig) -> None:
        super().__init__()
        self.config = config
        self.stage = "together"
        inputs = config.in_channels + 3 * config.classes
        widths = (inputs, *config.widths)
        self.views = nn.ModuleList(unet2d.build(config.in_channels, config.classes) for _ in range(3))
        self.down = nn.ModuleList(
            nn.Sequential(_unit(above, width), _unit(width, width), _unit(width, width))
            for above, width in pairwise(widths)
        )
        self.bottom = _unit(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            nn.Sequential(_grow(width, above), _unit(above, above)) for above, width in pairwise(widths)
        )
        self.head = nn.Conv3d(inputs, config.classes, 1)
        self._init_as_majority_vote()

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits for every voxel of the image."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage != "fusion"):
            # Slices are perpendicular to the last axis: i (sagittal), j (coronal), k (axial).
            logits = [view(image.movedim(axis, -1)).movedim(-1, axis) for axis, view in enumerate(self.views, start=2)]
        if self.stage == "views" and self.training:
            return tuple(logits)
        inputs = torch.cat((image, *(view.softmax(1) for view in logits)), 1)  # (B, in_channels + 3·classes, I, J, K)
        x = pad_to_multiple(inputs, (2 ** len(self.down),) * 3, coarsest=2)
        maps = [x]
        for stage in self.down:
            maps.append(F.max_pool3d(stage(maps[-1]), 2))  # (B, widths[l], I / 2^(l + 1), ...)
        x = self.bottom(maps.pop())
        for stage in reversed(self.up):
            x = stage(x) + maps.pop()
        return crop_to(self.head(x), image.shape[2:])

    def set_training_progress(self, fraction: float) -> None:
        """Choose the stage, given the fraction of the training that is done, 0 to 1."""
        self.stage = "views" if fraction < self.config.views_share else "fusion"
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but frozen views keep the statistics of their norms."""
        super().train(mode)
        if self.stage == "fusion":
            self.views.eval()
        return self

    def _init_as_majority_vote(self) -> None:
        classes = self.config.classes
        with torch.no_grad():
            self.head.weight.zero_()
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
            for view in range(3):
                first = self.config.in_channels + view * classes
                self.head.weight[:, first : first + classes, 0, 0, 0] = _VOTE * torch.eye(classes)
        # Not zero: after a ReLU, the gradients would be zero.
        nn.init.constant_(self.up[0].get_parameter("1.1.weight"), 0.1)


@register_model(
    "vfn",
    paper="Xia et al. 2018, doi:10.1007/978-3-030-00937-3_51",
    parameters=3_926_763,
    input_requirements="any size (padded inside: slices to a multiple of 16, the fusion to one of 8), any channels",
    multiply_adds=148_897,
    note="three unet2d along the axes and a 3D network that fuses them; trained in two stages",
)
def build(
    in_channels: int, classes: int, widths: Sequence[int] = (16, 32, 64), views_share: float = 0.5
) -> VolumetricFusionNet:
    """Build the network; see `VfnConfig`.

    Raises:
        ModelError: Widths below 1, or a fraction outside 0 to 1.
    """
    if not isinstance(widths, (list, tuple)) or not widths or any(type(w) is not int or w < 1 for w in widths):
        raise ModelError(f"widths={widths!r} for 'vfn'", allowed="one positive whole number a stage")
    if isinstance(views_share, bool) or not isinstance(views_share, (int, float)) or not 0 <= views_share <= 1:
        raise ModelError(f"views_share={views_share!r} for 'vfn'", allowed="0 to 1")
    return VolumetricFusionNet(VfnConfig(in_channels, classes, tuple(widths), views_share))


def _unit(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, padding=1), nn.BatchNorm3d(out_channels), nn.ReLU(inplace=True)
    )


def _grow(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(in_channels, out_channels, 4, stride=2, padding=1),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(inplace=True),
    )
