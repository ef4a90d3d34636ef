"""A chain of 1×1×1 layers on processors: pieces of positions, each thread a piece at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from farvox.ops.threads import parallel_for

if TYPE_CHECKING:
    from farvox.ops.pointwise.api import PointwiseLayer

_PIECE = 2048
"""Positions taken through the chain together: 2 MB at 256 channels."""


def chain(x: torch.Tensor, steps: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """As `pointwise_chain`."""
    x, steps = x.detach(), tuple(step.detached() for step in steps)
    rows = x.shape[1]
    for step in steps:
        rows = len(step.bias) + (rows if step.concatenate else 0)
    out = x.new_empty(x.shape[0], rows, x.shape[2])

    def work(piece: tuple[int, int]) -> None:
        member, first = piece
        span = slice(first, first + _PIECE)
        out[member, :, span] = _through(x[member, :, span], steps)

    parallel_for(work, [(member, first) for member in range(len(x)) for first in range(0, x.shape[2], _PIECE)])
    return out


def _through(x: torch.Tensor, steps: tuple[PointwiseLayer, ...]) -> torch.Tensor:
    """(C, T) → (C', T)."""
    room = _allocate(x.shape, steps, x)
    room[: len(x)] = x
    rows = len(x)
    for n, step in enumerate(steps):
        x, count = room[:rows], len(step.bias)
        if step.concatenate:
            y = room[rows : rows + count]
            rows += count
        else:
            room, rows = _allocate((count, x.shape[1]), steps[n + 1 :], x), count
            y = room[:count]
        if step.weight.ndim == 1:
            torch.mul(x, step.weight[:, None], out=y).add_(step.bias[:, None])
        else:
            torch.addmm(step.bias[:, None], step.weight, x, out=y)
        if step.slope == 0:
            y.relu_()
        elif step.slope != 1:
            torch.nn.functional.leaky_relu_(y, step.slope)
    return room[:rows]


def _allocate(shape: tuple[int, ...], steps: tuple[PointwiseLayer, ...], like: torch.Tensor) -> torch.Tensor:
    """Room for rows and for all that the next steps put behind them."""
    rows = shape[0]
    for step in steps:
        if not step.concatenate:
            break
        rows += len(step.bias)
    return like.new_empty(rows, shape[1])
