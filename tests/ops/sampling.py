"""Inputs of sparse convolutions in tests, and what a backend makes of them."""

from __future__ import annotations

from typing import Any

import torch

from farvox.ops import sparse_conv

SamplePoints = dict[str, Any]


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def conv_case(
    shape: tuple[int, ...],
    channels: int,
    pairs: bool,
    batch: int = 2,
    outputs: int = 4,
    groups: int = 2,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, offsets of which many leave the image and one misses it, weight."""
    dims, count = len(shape), 6
    offsets = 0.4 * (random_tensor(count, 2, dims, seed=1) if pairs else random_tensor(count, dims, seed=1))
    offsets[-1] = 2.5
    return random_tensor(batch, channels, *shape), offsets, random_tensor(outputs, channels * count // groups, seed=2)


def run_conv(
    backend: str, dtype: torch.dtype, tensors: tuple[torch.Tensor, ...], places: SamplePoints, groups: int
) -> list[torch.Tensor]:
    """Answer of `sparse_conv` and gradients of image, offsets and weight; in float64 for the reference."""
    leaves = [tensor.detach().clone().to(dtype).requires_grad_() for tensor in tensors]
    if "points" in places:
        places = {name: value.to(dtype) for name, value in places.items()}
    out = sparse_conv(*leaves, **places, groups=groups, backend=backend)
    out.backward(random_tensor(*out.shape, seed=3).to(dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]
