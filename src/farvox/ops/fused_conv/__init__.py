"""3×3×3 convolution of few channels at full size, fused with upsampling before and a 1×1×1 convolution after it."""

from farvox.ops.fused_conv.api import fused_conv

__all__ = ["fused_conv"]
