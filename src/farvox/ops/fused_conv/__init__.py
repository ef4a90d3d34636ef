"""3×3×3 convolution of few channels at full size, with what stands before and after it, in one pass."""

from farvox.ops.fused_conv.api import few_channel_conv

__all__ = ["few_channel_conv"]
