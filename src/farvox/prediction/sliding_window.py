"""Network output of volumes of any size, from overlapping windows; each slab is returned when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Literal

import numpy as np
import torch

from farvox.types import Shape

SlabReader = Callable[[int, int], torch.Tensor]
"""(start, stop) along K → network input (C, I, J, stop - start)."""
BlendMode = Literal["gaussian", "mean"]
"""Weights of overlapping windows: highest in the middle, or equal."""
PredictFn = Callable[[torch.Tensor], torch.Tensor]
"""Windows (B, C, I, J, K) → class probabilities (B, classes, I, J, K)."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxel of each window along an axis: evenly spaced, the last window ends at the end of the axis.

    Args:
        size: Voxels of the axis, at least `window`.
        window: Voxels of a window.
        overlap: Smallest fraction that neighbouring windows have in common, 0 to below 1.
    """
    step = max(1, int(window * (1 - overlap)))
    count = 1 + int(np.ceil((size - window) / step))
    return [round(index * (size - window) / max(count - 1, 1)) for index in range(count)]


def window_weights(window: Shape, blend: BlendMode = "gaussian") -> torch.Tensor:
    """Weight of each voxel of a window: a Gaussian with a standard deviation of a quarter of each side, at least 0.01.

    Near the edge of a window the network has less context than in the middle, hence the lower weight.
    With `mean`, all weights are 1.
    """
    if blend == "mean":
        return torch.ones(window)
    axes = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in window]
    return (axes[0][:, None, None] * axes[1][:, None] * axes[2]).clamp_min(0.01)


def sliding_window_inference(
    predict: PredictFn,
    slab: SlabReader,
    shape: Shape,
    window: Shape,
    overlap: float = 0.5,
    batch: int = 1,
    blend: BlendMode = "gaussian",
) -> Iterator[torch.Tensor]:
    """Class probabilities of a volume, in order along K; each part is returned when all of its windows are done.

    Memory holds classes × I × J × the window's K, regardless of the length of the volume. A volume smaller than the
    window is padded with zeros on both sides, as patches in training.

    Args:
        predict: The network.
        slab: Returns the network's input.
        shape: Voxels of the volume.
        window: Voxels of a window.
        overlap: Smallest fraction that neighbouring windows have in common.
        batch: Windows evaluated at a time.
        blend: Weights of overlapping windows.

    Yields:
        (classes, I, J, n) float32; the n add up to the volume's K.
    """
    before = [max(0, w - n) // 2 for n, w in zip(shape, window, strict=True)]
    padded = tuple(max(n, w) for n, w in zip(shape, window, strict=True))
    inner_i, inner_j = (slice(before[a], before[a] + shape[a]) for a in (0, 1))
    weights = window_weights(window, blend)
    columns = list(product(*(window_starts(n, w, overlap) for n, w in zip(padded[:2], window[:2], strict=True))))
    depth = window[2]
    starts = window_starts(padded[2], depth, overlap)
    total: torch.Tensor | None = None
    divisor = torch.zeros(*padded[:2], depth)
    for position, start in enumerate(starts):
        block = _padded(slab, shape, before, padded, start, start + depth)
        for first in range(0, len(columns), batch):
            group = columns[first : first + batch]
            windows = torch.stack([block[:, i : i + window[0], j : j + window[1]] for i, j in group])
            outputs = predict(windows)
            if total is None:
                total = torch.zeros(outputs.shape[1], *padded[:2], depth, device=outputs.device)
                divisor, weights = divisor.to(outputs.device), weights.to(outputs.device)
            for (i, j), one in zip(group, outputs, strict=True):
                part = (slice(i, i + window[0]), slice(j, j + window[1]))
                total[:, *part] += one * weights
                divisor[part] += weights
        assert total is not None
        following = starts[position + 1] if position + 1 < len(starts) else start + depth
        n_done = following - start
        low, high = max(before[2] - start, 0), min(before[2] + shape[2] - start, n_done)
        if high > low:
            yield total[:, inner_i, inner_j, low:high] / divisor[inner_i, inner_j, low:high]
        for buffer in (total, divisor):
            rest = buffer[..., n_done:].clone()
            buffer[..., : depth - n_done] = rest
            buffer[..., depth - n_done :] = 0


def _padded(
    slab: SlabReader, shape: Shape, before: list[int], padded: Shape | tuple[int, ...], start: int, stop: int
) -> torch.Tensor:
    low, high = max(start - before[2], 0), min(stop - before[2], shape[2])
    block = slab(low, high)
    if padded == shape:
        return block
    after = [p - n - b for p, n, b in zip(padded, shape, before, strict=True)]
    k = (low + before[2] - start, stop - before[2] - high)
    return torch.nn.functional.pad(block, (*k, before[1], after[1], before[0], after[0]))
