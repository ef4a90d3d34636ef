"""Sparse sampling on GPUs: one kernel samples and sums with weights, so that samples are never stored in memory."""

from __future__ import annotations

import math
import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from farvox.errors import UsageError

# Compiled for an H100 (65,536 registers on each of 132 processors) a tile of 32 rows × 64 positions on 256 threads, 8
# values each, needs 140 to 170 registers per thread, 250 for pairs: enough loads in flight to hide the latency of L2,
# and no spilled registers; with 16 values registers are spilled. Neighbouring positions share cache lines.
_ROWS, _POSITIONS = 32, 64
# One stage: in more, gathers go through shared memory, which doubles the instructions and spills registers.
# Triton fuses multiply-adds by default only up to version 3.9.
_LAUNCH = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}
_MAX_OUTPUTS = 128
"""For more outputs, the image is sampled again for each block of outputs."""

_BACKWARD_POSITIONS, _BACKWARD_OUTPUTS = 32, 64
"""Smaller: up to six sums for the offsets and one for the weights stay in registers over a whole run of tiles."""

_PROGRAMS = 2048
"""Backward programs, each with its own partial sums: about 16 per processor, 16 MB for the weights."""

_WIDE = 1 << 31
"""Voxels of one channel, strides included, from which indices need 64 bits."""


def unavailable_reason(image: torch.Tensor) -> str | None:
    """Why these kernels cannot process this image; None if they can.

    If TRITON_INTERPRET=1 is set before triton is imported, they run on the CPU, very slowly.
    """
    if find_spec("triton") is None:
        return "triton is not installed"
    if image.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{str(image.dtype).removeprefix('torch.')} needs the reference"
    if not image.is_cuda:
        # The variable first, so that triton is not imported for images on the CPU.
        interpreted = os.environ.get("TRITON_INTERPRET") == "1" and _interpreted()
        return None if interpreted else f"the image is on {image.device}"
    if torch.version.hip is None and torch.cuda.get_device_capability(image.device) < (8, 0):
        return "this GPU is older than compute capability 8.0"
    return None


def sample(image: torch.Tensor, offsets: torch.Tensor, positions: torch.Tensor, align_corners: bool) -> torch.Tensor:
    """Sample the image at every position + offset, in float32.

    Args:
        image: (B, C, *spatial), d = 2 or 3 spatial axes; float32, float16 or bfloat16; any strides.
        offsets: (K, d) or (K, 2, d), normalised, array axis order, float32.
        positions: (B, S, d) or (1, S, d), likewise.
        align_corners: Whether ±1 are centres of corner voxels.

    Returns:
        (B, C, K, S), the image's dtype. Zero wherever a coordinate is not finite or outside the image.
    """
    batch, channels, count, n_positions = image.shape[0], image.shape[1], offsets.shape[0], positions.shape[1]
    out = image.new_empty(batch, channels, count, n_positions)
    if out.numel():
        tiles, rows = _blocks(n_positions, _POSITIONS), channels * count
        with torch.cuda.device_of(image):
            _kernels().sample_kernel[(batch * tiles, _blocks(rows, _ROWS))](
                out, image, offsets.contiguous(), positions.contiguous(),
                rows, n_positions, tiles, _position_stride(positions), *_layout(image),
                **_kind(image, offsets, align_corners), BLOCK_R=_ROWS, BLOCK_S=_POSITIONS, **_LAUNCH,
            )  # fmt: skip
    return out


def conv(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    positions: torch.Tensor,
    align_corners: bool,
    groups: int,
) -> torch.Tensor:
    """`sample` and a grouped 1×1 convolution in one kernel, sums in float32.

    Args:
        image: As for `sample`.
        offsets: As for `sample`.
        weight: (O, C·K / groups), the image's dtype; what is read is rounded to it before the product.
        positions: As for `sample`.
        align_corners: As for `sample`.
        groups: Divides O and C·K.

    Returns:
        (B, O, S), the image's dtype.
    """
    batch, n_positions, (all_outputs, rows) = image.shape[0], positions.shape[1], weight.shape
    out = image.new_empty(batch, all_outputs, n_positions)
    if out.numel():
        outputs, tiles = all_outputs // groups, _blocks(n_positions, _POSITIONS)
        block = _power(outputs, _MAX_OUTPUTS)
        with torch.cuda.device_of(image):
            _kernels().conv_kernel[(batch * tiles, groups * _blocks(outputs, block))](
                out, image, offsets.contiguous(), weight.contiguous(), positions.contiguous(),
                rows, outputs, groups, n_positions, tiles, _position_stride(positions), *_layout(image),
                **_kind(image, offsets, align_corners), **_product(image),
                BLOCK_O=block, BLOCK_R=_ROWS, BLOCK_S=_POSITIONS, **_LAUNCH,
            )  # fmt: skip
    return out


def sample_backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    positions: torch.Tensor,
    align_corners: bool,
    needs: tuple[bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `sample`.

    Args:
        grad: (B, C, K, S), for its output.
        image: As for `sample`.
        offsets: As for `sample`.
        positions: As for `sample`.
        align_corners: As for `sample`.
        needs: Which of image and offsets to compute.

    Returns:
        For the image in its dtype, contiguous; for the offsets in float32; None where not needed.

    Raises:
        UsageError: The image's gradient on a GPU under `torch.use_deterministic_algorithms`.
    """
    rows = image.shape[1] * offsets.shape[0]
    # One group with one unused output: the kernel uses grad as the gradient of the samples.
    rows_grad = grad.reshape(image.shape[0], rows, grad.shape[3])
    grads = _backward(rows_grad, image, offsets, None, positions, align_corners, 1, rows, 1, (*needs, False))
    return grads[0], grads[1]


def conv_backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    positions: torch.Tensor,
    align_corners: bool,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `conv`; samples are computed again, not stored.

    Args:
        grad: (B, O, S), for its output, any strides.
        image: As for `conv`.
        offsets: As for `conv`.
        weight: As for `conv`.
        positions: As for `conv`.
        align_corners: As for `conv`.
        groups: As for `conv`.
        needs: Which of image, offsets and weight to compute.

    Returns:
        For image and weight in their dtype (summed in float32), for the offsets in float32; None where not needed.

    Raises:
        UsageError: The image's gradient on a GPU under `torch.use_deterministic_algorithms`.
    """
    outputs, rows = weight.shape[0] // groups, weight.shape[1]
    return _backward(grad, image, offsets, weight, positions, align_corners, groups, rows, outputs, needs)


def _backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None,
    positions: torch.Tensor,
    align_corners: bool,
    groups: int,
    rows: int,
    outputs: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """`rows` and `outputs` of one group; grad (B, C·K, S) without a weight, else (B, O, S)."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if needs[0] and image.is_cuda and strict:
        raise UsageError(
            "the triton backend adds up the gradient for the image in no fixed order",
            hint="torch.use_deterministic_algorithms(False)",
        )
    batch, channels, n_positions = image.shape[0], image.shape[1], positions.shape[1]
    block = _power(outputs, _BACKWARD_OUTPUTS)
    tiles, row_blocks = _blocks(n_positions, _BACKWARD_POSITIONS), groups * _blocks(rows, _ROWS)
    output_blocks = _blocks(outputs, block)
    # Runs of whole tiles, at least one each.
    run_tiles = max(1, _blocks(batch * tiles * row_blocks * output_blocks, _PROGRAMS))
    runs = _blocks(batch * tiles, run_tiles)

    image_grad = torch.zeros(image.shape, device=image.device) if needs[0] else None
    offset_parts = offsets.new_empty(output_blocks * runs, channels, *offsets.shape) if needs[1] else None
    weight_parts = offsets.new_empty(runs, groups * outputs, rows) if needs[2] else None
    if runs and any(needs):
        # Offsets and image are placeholders for unused pointers.
        with torch.cuda.device_of(image):
            _kernels().backward_kernel[(runs, row_blocks, output_blocks)](
                image_grad if needs[0] else offsets, offset_parts if needs[1] else offsets,
                weight_parts if needs[2] else offsets,
                grad, image, offsets.contiguous(), image if weight is None else weight.contiguous(),
                positions.contiguous(),
                rows, outputs, groups, batch, n_positions, tiles, run_tiles, _position_stride(positions),
                *grad.stride(), *_layout(image),
                **_kind(image, offsets, align_corners), **_product(image), PRODUCT=weight is not None,
                FOR_IMAGE=needs[0], FOR_OFFSETS=needs[1], FOR_WEIGHT=needs[2],
                BLOCK_O=block, BLOCK_R=_ROWS, BLOCK_S=_BACKWARD_POSITIONS, **_LAUNCH,
            )  # fmt: skip
    offset_grad = None
    if offset_parts is not None:
        offset_grad = offset_parts.sum((0, 1))
        for axis, size in enumerate(image.shape[2:]):  # from per voxel to normalised, without copying sizes to the GPU
            offset_grad[..., axis] *= (size - 1 if align_corners else size) / 2
    return (
        None if image_grad is None else image_grad.to(image.dtype),
        offset_grad,
        None if weight_parts is None else weight_parts.sum(0).to(image.dtype),
    )


def _layout(image: torch.Tensor) -> tuple[int, ...]:
    """Strides of batch, channel and three axes, then three sizes; a 2D image gets a first axis of one voxel."""
    missing = 5 - image.ndim
    return (*image.stride()[:2], *(0,) * missing, *image.stride()[2:], *(1,) * missing, *image.shape[2:])


def _kind(image: torch.Tensor, offsets: torch.Tensor, align_corners: bool) -> dict[str, Any]:
    """Compile-time constants of the kernels."""
    extent = sum(size * stride for size, stride in zip(image.shape[2:], image.stride()[2:], strict=True))
    return {
        "COUNT": offsets.shape[0],  # every row is divided by it
        "DIMS": image.ndim - 2,
        "PAIRS": offsets.ndim == 3,
        "CORNERS": align_corners,
        # The gradient is contiguous, the image may be strided or expanded: either can need 64-bit indices.
        "WIDE": max(extent, math.prod(image.shape[2:])) >= _WIDE,
    }


def _product(image: torch.Tensor) -> dict[str, Any]:
    """Precision of `tl.dot`: full float32 unless TF32 is enabled in PyTorch."""
    matmul = torch.backends.cuda.matmul
    # The older attribute raises an error if the newer one has been set (PyTorch 2.9).
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    tl = _kernels().tl
    operand = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[image.dtype]
    if _interpreted():
        operand = tl.float32  # the interpreter multiplies the bit patterns of bfloat16
    return {"OPERAND": operand, "PRECISION": "tf32" if allowed and torch.version.cuda else "ieee"}


def _position_stride(positions: torch.Tensor) -> int:
    """Stride between batch entries of the contiguous tensor; 0 if all share the same values."""
    return positions.shape[1] * positions.shape[2] if positions.shape[0] > 1 else 0


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _power(size: int, largest: int) -> int:
    """Power of two for a block of at most `size`; `tl.dot` needs at least 16."""
    return min(largest, max(16, 1 << (size - 1).bit_length()))


@cache
def _kernels() -> ModuleType:
    # Imported here so that this module can be imported without triton.
    from farvox.ops.sparse_sample import _triton_kernels

    return _triton_kernels


def _interpreted() -> bool:
    return type(_kernels().conv_kernel).__name__ == "InterpretedFunction"
