"""The fast backends as one PyTorch operator, which is opaque to autograd, torch.compile and torch.export.

Without `from __future__ import annotations`, because PyTorch inspects the signatures.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from farvox.ops.sparse_sample import cpu, triton
from farvox.ops.sparse_sample.sample_points import FreePoints, SampleGrid, flatten_positions

BACKEND_MODULES = {"cpu": cpu, "triton": triton}
"""Backends other than the reference."""


@torch.library.custom_op("farvox::sparse_conv", mutates_args=())
def sparse_conv_op(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None,
    points: torch.Tensor | None,
    offset_transforms: torch.Tensor | None,
    grid: Sequence[int],
    align_corners: bool,
    start: int,
    stop: int,
    groups: int,
    backend: str,
) -> torch.Tensor:
    """(B, O, S), or without a weight (B, C·K, S); `grid` is the whole grid, of which only start..stop are computed."""
    module: Any = BACKEND_MODULES[backend]
    positions = _positions_for(backend, points, offset_transforms, grid, align_corners, start, stop, offsets)
    if weight is None:
        features: torch.Tensor = module.sample(image, offsets, *positions)
        return features.flatten(1, 2)
    output: torch.Tensor = module.conv(image, offsets, weight, *positions, groups)
    return output


@torch.library.custom_op("farvox::sparse_conv_backward", mutates_args=())
def sparse_conv_backward_op(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None,
    points: torch.Tensor | None,
    offset_transforms: torch.Tensor | None,
    grid: Sequence[int],
    align_corners: bool,
    start: int,
    stop: int,
    groups: int,
    backend: str,
    needs_image: bool,
    needs_offsets: bool,
    needs_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of image, offsets and weight; empty where not needed."""
    module: Any = BACKEND_MODULES[backend]
    positions = _positions_for(backend, points, offset_transforms, grid, align_corners, start, stop, offsets)
    gradients: list[torch.Tensor | None]
    if weight is None:
        rows = grad.unflatten(1, (image.shape[1], offsets.shape[0]))
        gradients = [*module.sample_backward(rows, image, offsets, *positions, (needs_image, needs_offsets)), None]
    else:
        needs = needs_image, needs_offsets, needs_weight
        gradients = [*module.conv_backward(grad, image, offsets, weight, *positions, groups, needs)]
    a, b, c = (grad.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return a, b, c


def _positions_for(
    backend: str, points: Any, offset_transforms: Any, grid: Any, align_corners: bool, start: int, stop: int, like: Any
) -> tuple[Any, ...]:
    """Arguments of a backend: the CPU receives the grid, a GPU its positions."""
    sample_points = (
        SampleGrid(tuple(grid), align_corners, start, stop) if points is None else FreePoints(points, offset_transforms)
    )
    return (sample_points,) if backend == "cpu" else flatten_positions(sample_points, like)


@sparse_conv_op.register_fake
def _(image, offsets, weight, points, offset_transforms, grid, align_corners, start, stop, groups, backend):
    rows = image.shape[1] * offsets.shape[0] if weight is None else weight.shape[0]
    count = (stop - start) * math.prod(grid[1:]) if points is None else points.shape[1]
    return image.new_empty((image.shape[0], rows, count))


@sparse_conv_backward_op.register_fake
def _(grad, image, offsets, weight, *rest):
    pairs = zip((image, offsets, weight), rest[-3:], strict=True)
    return tuple(t.new_empty(t.shape) if needed and t is not None else grad.new_empty(0) for t, needed in pairs)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    image, offsets, weight, points, offset_transforms, *ctx.rest = inputs
    ctx.save_for_backward(image, offsets, weight, points, offset_transforms)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    needs = ctx.needs_input_grad[:3]
    gradients = sparse_conv_backward_op(grad, *ctx.saved_tensors, *ctx.rest, *needs)
    return *(g if needed else None for g, needed in zip(gradients, needs, strict=True)), *[None] * (2 + len(ctx.rest))


sparse_conv_op.register_autograd(_differentiate, setup_context=_save_inputs)
