"""Distance of features and its gradient in one pass over the points, features contiguous in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from farvox.ops.jit import kernel
from farvox.ops.threads import parallel_for

_CHUNK = 8192
"""Points per chunk of a thread."""


def feature_distance(
    target: torch.Tensor, maps: torch.Tensor, points: torch.Tensor, round_below: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth L1 distance, and its gradient (S, 3) with respect to the points.

    Args:
        target: (S, C) float32, contiguous.
        maps: (I, J, K, C) float32, contiguous.
        points: (S, 3), normalised.
        round_below: As in `FeatureDistance`.
    """
    target_array, map_array = target.numpy(), maps.numpy()
    positions = points.to(torch.float32).contiguous().numpy()
    gradient = np.empty(positions.shape, dtype=np.float32)
    starts = range(0, len(positions), _CHUNK)
    sums = np.zeros(len(starts))

    def work(chunk: int) -> None:
        span = slice(starts[chunk], starts[chunk] + _CHUNK)
        sums[chunk] = _distances(
            target_array[span], map_array, positions[span], np.float32(round_below), gradient[span]
        )

    parallel_for(work, range(len(starts)))
    scale = 1.0 / max(target_array.size, 1)
    gradient *= scale
    return torch.tensor(sums.sum() * scale, dtype=torch.float32), torch.from_numpy(gradient).to(points.dtype)


@kernel
def _distances(target: Any, maps: Any, points: Any, near: Any, gradient: Any) -> float:
    """Sum of distances; writes its gradient with respect to normalised points to `gradient`."""
    counts = maps.shape
    features = maps.shape[3]
    total: Any = 0.0
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    fraction = np.empty(3, np.float32)
    slope = np.empty(3, np.float32)
    for point in range(points.shape[0]):
        for axis in range(3):
            count = counts[axis]
            position = ((points[point, axis] + np.float32(1)) * np.float32(count) - np.float32(1)) * np.float32(0.5)
            # Clamped to the outermost centres, where the gradient is zero; NaN is sampled at the first voxel.
            slope[axis] = np.float32(count) * np.float32(0.5)
            if not position > 0:
                position = np.float32(0)
                slope[axis] = np.float32(0)
            elif position >= count - 1:
                position = np.float32(count - 1)
                slope[axis] = np.float32(0)
            low[axis] = int(position)
            high[axis] = min(low[axis] + 1, count - 1)
            fraction[axis] = position - np.float32(low[axis])
        a, b, c = fraction[0], fraction[1], fraction[2]
        corner000 = maps[low[0], low[1], low[2]]
        corner001 = maps[low[0], low[1], high[2]]
        corner010 = maps[low[0], high[1], low[2]]
        corner011 = maps[low[0], high[1], high[2]]
        corner100 = maps[high[0], low[1], low[2]]
        corner101 = maps[high[0], low[1], high[2]]
        corner110 = maps[high[0], high[1], low[2]]
        corner111 = maps[high[0], high[1], high[2]]
        away = np.float32(0)
        along_i = np.float32(0)
        along_j = np.float32(0)
        along_k = np.float32(0)
        for f in range(features):
            k00 = corner001[f] - corner000[f]
            k01 = corner011[f] - corner010[f]
            k10 = corner101[f] - corner100[f]
            k11 = corner111[f] - corner110[f]
            v00 = corner000[f] + c * k00
            v01 = corner010[f] + c * k01
            v10 = corner100[f] + c * k10
            v11 = corner110[f] + c * k11
            j0 = v01 - v00
            j1 = v11 - v10
            v0 = v00 + b * j0
            i0 = v10 + b * j1 - v0
            difference = v0 + a * i0 - target[point, f]
            k0 = k00 + b * (k01 - k00)
            k1 = k10 + b * (k11 - k10)
            sign = min(max(difference / near, np.float32(-1)), np.float32(1))
            away += sign * (difference - np.float32(0.5) * near * sign)
            along_i += sign * i0
            along_j += sign * (j0 + a * (j1 - j0))
            along_k += sign * (k0 + a * (k1 - k0))
        total += away
        gradient[point, 0] = along_i * slope[0]
        gradient[point, 1] = along_j * slope[1]
        gradient[point, 2] = along_k * slope[2]
    return total
