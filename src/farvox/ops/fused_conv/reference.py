"""The fused convolution in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def conv(
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: float,
    coarse: torch.Tensor | None,
    head_weight: torch.Tensor | None,
    head_bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `fused_conv`."""
    if coarse is not None:
        upsampled = F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=False)
        image = torch.cat((upsampled, image), 1)
    y = F.leaky_relu(F.conv3d(image, weight, bias, padding=1), slope)
    return y if head_weight is None else F.conv3d(y, head_weight[:, :, None, None, None], head_bias)
