"""Convolution units: convolution, normalisation, activation."""

from __future__ import annotations

from torch import nn

from farvox.types import Shape


class ConvNormAct(nn.Sequential):
    """3D convolution without bias, instance norm with scale and shift, leaky ReLU 0.01; (B, C, I, J, K) → same layout.

    Instance norm is implemented as group norm with one channel per group: same values, faster on CPUs.
    In training the output must have at least two voxels.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd kernel size along each axis, voxels.
        stride: Stride along each axis, voxels; even sizes are divided by it exactly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Shape = (3, 3, 3),
        stride: Shape = (1, 1, 1),
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False),
            nn.GroupNorm(out_channels, out_channels),
            nn.LeakyReLU(0.01, inplace=True),
        )


def conv_batch_norm(
    in_channels: int, out_channels: int, slope: float = 0.1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """3×3×3 convolution with bias, batch norm, leaky ReLU: the unit of the OBELISK papers' networks.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        slope: Slope of the leaky ReLU below zero.
        stride: Stride along each axis, voxels; sizes are divided by it and rounded up.
        groups: Groups of the convolution.
    """
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride, padding=1, groups=groups),
        nn.BatchNorm3d(out_channels),
        nn.LeakyReLU(slope),
    )


def double_conv(
    in_channels: int, out_channels: int, kernel: Shape = (3, 3, 3), stride: Shape = (1, 1, 1)
) -> nn.Sequential:
    """Two `ConvNormAct`; the first one has the stride."""
    return nn.Sequential(
        ConvNormAct(in_channels, out_channels, kernel, stride), ConvNormAct(out_channels, out_channels, kernel)
    )
