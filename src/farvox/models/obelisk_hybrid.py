"""OBELISK-Net, hybrid: a shallow U-Net whose coarse levels are two sparse kernels with very large receptive fields.

Heinrich, Oktay and Bouteldja, "OBELISK-Net: Fewer Layers to Solve 3D Multi-Organ Segmentation with Sparse Deformable
Convolutions", Medical Image Analysis 2019, doi:10.1016/j.media.2019.02.006. The paper describes one network; these
layouts are those of the two published sets of weights, which differ: "tcia" (229,217 parameters with 9 classes) and
"visceral" (230,208 with 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from farvox.blocks import FusedConvUnit, Obelisk, PointwiseDense, box_smooth, conv_batch_norm, crop_to, pad_to_multiple
from farvox.errors import ModelError, suggest
from farvox.models.registry import register_model
from farvox.ops import SampleGrid
from farvox.types import Shape


@dataclass(frozen=True)
class HybridLayout:
    """Differences of the two published networks.

    Args:
        slope: Slope of the leaky ReLU below zero, after convolutions.
        dense_slope: The same after 1×1×1 convolutions.
        quarter_convs: Convolutions at a quarter of the size.
        near_samples_features: Whether the near kernel samples the first convolution's features instead of the smoothed
            image.
        near_groups: Groups of the near kernel's weights.
        near_width: Output channels of the near kernel.
        far_smoothings: Average poolings before the far kernel samples the image.
        half_width: Channels of the decoder at half size.
        decode_full: Whether a last 3×3×3 convolution works at full size; otherwise logits are upsampled from half the
            size.
    """

    slope: float
    dense_slope: float
    quarter_convs: int
    near_samples_features: bool
    near_groups: int
    near_width: int
    far_smoothings: int
    half_width: int
    decode_full: bool


LAYOUTS = {
    "tcia": HybridLayout(0.025, 0.025, 3, False, 2, 16, 2, 12, True),
    "visceral": HybridLayout(0.05, 0.0, 1, True, 4, 32, 1, 32, False),
}


@dataclass(frozen=True)
class HybridConfig:
    """Layout of the network.

    Args:
        in_channels: Channels of the image.
        classes: Output classes, background included.
        variant: "tcia" or "visceral".
        compat: "none", or "published" for weights trained by the authors: ±1 at the centres of the corner voxels, and
            for "tcia" a far grid that has a quarter of the size along the second axis.
    """

    in_channels: int
    classes: int
    variant: str
    compat: str

    @property
    def layout(self) -> HybridLayout:
        """The variant's layout."""
        return LAYOUTS[self.variant]

    def grids(self, quarter: Shape, eighth: Shape) -> tuple[SampleGrid, SampleGrid]:
        """Output grids of the near and the far kernel."""
        if self.compat == "none":
            return SampleGrid(quarter), SampleGrid(eighth)
        far = (eighth[0], quarter[1], eighth[2]) if self.variant == "tcia" else eighth
        return SampleGrid(quarter, align_corners=True), SampleGrid(far, align_corners=True)


class ObeliskHybrid(nn.Module):
    """(B, in_channels, I, J, K) of any size → logits (B, classes, I, J, K)."""

    size_dependent = True  # offsets are fractions of the image size

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        layout, slope = config.layout, config.layout.slope
        self.encode_full = FusedConvUnit(config.in_channels, 4, slope)
        self.encode_half = nn.Sequential(conv_batch_norm(4, 16, slope, stride=2), FusedConvUnit(16, 16, slope))
        self.encode_quarter = nn.Sequential(
            conv_batch_norm(16, 32, slope, stride=2),
            *(conv_batch_norm(32, 32, slope) for _ in range(layout.quarter_convs - 1)),
        )
        near_inputs = 4 if layout.near_samples_features else config.in_channels
        self.near = Obelisk(near_inputs, 128, offsets=128, groups=layout.near_groups)
        self.near_dense = PointwiseDense(128, layout.near_width, slope=layout.dense_slope)
        self.far = Obelisk(config.in_channels, 128, offsets=512, groups=4)
        self.far_dense = PointwiseDense(128, 32, slope=layout.dense_slope)
        self.activation = nn.LeakyReLU(layout.dense_slope)
        self.decode_quarter = conv_batch_norm(32 + 32, 32, slope)
        self.decode_half = FusedConvUnit(32 + layout.near_width + 16, layout.half_width, slope)
        self.decode_full = FusedConvUnit(layout.half_width + 4, config.classes, slope) if layout.decode_full else None
        self.head = nn.Conv3d(config.classes if layout.decode_full else layout.half_width, config.classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits for every voxel of the image."""
        layout = self.config.layout
        # Batch norm cannot be trained on a single voxel, an eighth of a tiny image.
        x = image if max(image.shape[2:]) > 8 else pad_to_multiple(image, (8, 8, 8), coarsest=2)
        full = self.encode_full(x)  # (B, 4, I, J, K)
        half = self.encode_half(full)  # (B, 16, I/2, J/2, K/2), sizes rounded up
        quarter = self.encode_quarter(half)  # (B, 32, I/4, J/4, K/4)
        i, j, k = quarter.shape[2:]
        near_grid, far_grid = self.config.grids((i, j, k), ((i + 1) // 2, (j + 1) // 2, (k + 1) // 2))

        smooth = box_smooth(x, 3)
        near_input = full if layout.near_samples_features else smooth
        near = self.near_dense(self.activation(self.near(near_input, near_grid)))  # (B, 16 or 32, I/4, J/4, K/4)
        far_input = box_smooth(smooth, 3) if layout.far_smoothings == 2 else smooth
        far = self.far_dense(self.activation(self.far(far_input, far_grid)))  # (B, 32, I/8, J/8, K/8)

        y = self.decode_quarter(torch.cat((quarter, _resize(far, quarter)), 1))  # (B, 32, I/4, J/4, K/4)
        y = self.decode_half(half, coarse=torch.cat((y, near), 1))  # (B, 12 or 32, I/2, J/2, K/2)
        if self.decode_full is None:
            return crop_to(_resize(self.head(y), x), image.shape[2:])
        return crop_to(self.decode_full(full, coarse=y, head=self.head), image.shape[2:])


@register_model(
    "obelisk-hybrid",
    paper="Heinrich et al. 2019, doi:10.1016/j.media.2019.02.006",
    parameters=229_217,
    reference_arguments={"in_channels": 1, "classes": 9},
    input_requirements="any size, any channels; offsets are fractions of its size: whole scans, or patches of one size",
    multiply_adds=10_217,
    note="variant='visceral': 230,208 with 8 classes; compat='published' runs weights trained by the authors",
)
def build(in_channels: int, classes: int, variant: str = "tcia", compat: str = "none") -> ObeliskHybrid:
    """Build the network; see `HybridConfig`.

    Raises:
        ModelError: Unknown variant or compat.
    """
    for name, value, allowed in (("variant", variant, tuple(LAYOUTS)), ("compat", compat, ("none", "published"))):
        if value not in allowed:
            raise ModelError(
                f"{name}='{value}' for 'obelisk-hybrid'",
                allowed=" or ".join(allowed),
                hint=suggest(str(value), allowed),
            )
    return ObeliskHybrid(HybridConfig(in_channels, classes, variant, compat))


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)
