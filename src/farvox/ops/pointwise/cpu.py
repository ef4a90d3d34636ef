"""A chain of 1×1×1 layers on CPUs: each thread computes one chunk of positions at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from farvox.ops.threads import parallel_for

if TYPE_CHECKING:
    from farvox.ops.pointwise.api import PointwiseLayer

_CHUNK = 2048
"""Positions per chunk: 2 MB at 256 channels."""


def chain(x: torch.Tensor, layers: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """As `pointwise_chain`."""
    x, layers = x.detach(), tuple(layer.detached() for layer in layers)
    rows = x.shape[1]
    for layer in layers:
        rows = len(layer.bias) + (rows if layer.concatenate else 0)
    out = x.new_empty(x.shape[0], rows, x.shape[2])

    def work(chunk: tuple[int, int]) -> None:
        member, first = chunk
        span = slice(first, first + _CHUNK)
        out[member, :, span] = _apply_layers(x[member, :, span], layers)

    parallel_for(work, [(member, first) for member in range(len(x)) for first in range(0, x.shape[2], _CHUNK)])
    return out


def _apply_layers(x: torch.Tensor, layers: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """(C, T) → (C', T)."""
    buffer = _allocate(x.shape, layers, x)
    buffer[: len(x)] = x
    rows = len(x)
    for n, layer in enumerate(layers):
        x, count = buffer[:rows], len(layer.bias)
        if layer.concatenate:
            y = buffer[rows : rows + count]
            rows += count
        else:
            buffer, rows = _allocate((count, x.shape[1]), layers[n + 1 :], x), count
            y = buffer[:count]
        if layer.weight.ndim == 1:
            torch.mul(x, layer.weight[:, None], out=y).add_(layer.bias[:, None])
        else:
            torch.addmm(layer.bias[:, None], layer.weight, x, out=y)
        if layer.slope == 0:
            y.relu_()
        elif layer.slope != 1:
            torch.nn.functional.leaky_relu_(y, layer.slope)
    return buffer[:rows]


def _allocate(shape: tuple[int, ...], layers: tuple[PointwiseLayer, ...], like: torch.Tensor) -> torch.Tensor:
    """Buffer for rows and for all that the next layers concatenate after them."""
    rows = shape[0]
    for layer in layers:
        if not layer.concatenate:
            break
        rows += len(layer.bias)
    return like.new_empty(rows, shape[1])
