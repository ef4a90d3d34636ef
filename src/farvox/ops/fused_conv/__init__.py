"""3×3×3 convolution of few channels at full size, with what stands before and after it, in one pass."""

from farvox.ops.fused_conv.api import fused_conv

__all__ = ["fused_conv"]
