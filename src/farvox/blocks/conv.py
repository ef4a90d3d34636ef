"""The plain convolution unit networks are stacked from."""

from __future__ import annotations

from torch import nn

Triple = tuple[int, int, int]
"""One whole number for each axis (i, j, k)."""


class ConvNormAct(nn.Sequential):
    """3D convolution without bias, instance norm with scale and shift, leaky ReLU 0.01; (B, C, I, J, K) → same layout.

    Instance norm is written as group norm with one channel a group: the same values, and faster on CPUs.
    In training the output must hold at least two voxels.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd kernel size along each axis, voxels.
        stride: Step along each axis, voxels; an even size is divided by it exactly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False),
            nn.GroupNorm(out_channels, out_channels),
            nn.LeakyReLU(0.01, inplace=True),
        )


def double_conv(
    in_channels: int, out_channels: int, kernel: Triple = (3, 3, 3), stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Two `ConvNormAct` in a row; the first one takes the stride."""
    return nn.Sequential(
        ConvNormAct(in_channels, out_channels, kernel, stride), ConvNormAct(out_channels, out_channels, kernel)
    )


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
