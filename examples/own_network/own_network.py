"""A network for farvox in ten lines."""

from torch import nn

import farvox


@farvox.register_model("own-network", paper="our own")
def build(in_channels: int, classes: int, *, width: int = 8) -> nn.Module:
    """Two convolutions: (B, in_channels, I, J, K) to logits (B, classes, I, J, K)."""
    return nn.Sequential(nn.Conv3d(in_channels, width, 5, padding=2), nn.ReLU(), nn.Conv3d(width, classes, 1))
