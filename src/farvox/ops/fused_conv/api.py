"""The fused convolution: checks arguments and uses the fast implementation in inference."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

from farvox.errors import UsageError
from farvox.ops.fast_path import fast_path_unavailable_reason
from farvox.ops.fused_conv import reference


def fused_conv(
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    slope: float = 0.0,
    coarse: torch.Tensor | None = None,
    head_weight: torch.Tensor | None = None,
    head_bias: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Upsample and concatenate, 3×3×3 convolution, leaky ReLU and 1×1×1 convolution in one pass.

    Args:
        image: (B, C, I, J, K).
        weight: (O, D + C, 3, 3, 3); zero padding of one voxel.
        bias: (O,).
        slope: Slope of the leaky ReLU below zero; 1: no activation.
        coarse: (B, D, i, j, k), upsampled trilinearly to the image's size (half-pixel centres), concatenated before it.
        head_weight: (H, O) of the final 1×1×1 convolution.
        head_bias: (H,).
        backend: "reference", "cpu" (inference in float32), or "auto" for the fastest available one.

    Returns:
        (B, O or H, I, J, K).

    Raises:
        UsageError: Channels that do not fit, or a backend that cannot run.
    """
    if image.ndim != 5:
        raise UsageError(f"image of shape {tuple(image.shape)}", allowed="(B, C, I, J, K)")
    if coarse is not None and (coarse.ndim != 5 or coarse.shape[0] != image.shape[0] or 0 in coarse.shape[2:]):
        raise UsageError(f"coarse of shape {tuple(coarse.shape)}", allowed=f"({image.shape[0]}, D, i, j, k)")
    channels = image.shape[1] + (0 if coarse is None else coarse.shape[1])
    if weight.ndim != 5 or weight.shape[1:] != (channels, 3, 3, 3):
        raise UsageError(f"weight of shape {tuple(weight.shape)}", allowed=f"(O, {channels}, 3, 3, 3)")
    outputs = weight.shape[0]
    if bias.shape != (outputs,):
        raise UsageError(f"bias of shape {tuple(bias.shape)}", allowed=f"({outputs},)")
    if head_weight is not None and (head_weight.ndim != 2 or head_weight.shape[1] != outputs):
        raise UsageError(f"head_weight of shape {tuple(head_weight.shape)}", allowed=f"(H, {outputs})")
    if head_bias is not None and (head_weight is None or head_bias.shape != head_weight.shape[:1]):
        raise UsageError(f"head_bias of shape {tuple(head_bias.shape)}", allowed="(H,), with a head_weight")
    tensors = [t for t in (image, weight, bias, coarse, head_weight, head_bias) if t is not None]
    reason = fast_path_unavailable_reason(tensors) or _without_numba()
    if backend not in ("auto", "reference", "cpu"):
        raise UsageError(f"no backend '{backend}'", allowed="auto, reference, cpu")
    if backend == "cpu" and reason is not None:
        raise UsageError(f"backend 'cpu' cannot run: {reason}", hint="use 'reference' or 'auto'")
    if backend == "reference" or reason is not None:
        return reference.conv(image, weight, bias, slope, coarse, head_weight, head_bias)
    from farvox.ops.fused_conv import cpu

    return cpu.conv(image, weight, bias, slope, coarse, head_weight, head_bias)


@cache
def _without_numba() -> str | None:
    return "numba is not installed" if find_spec("numba") is None else None
