"""The fast backend for inference on CPUs: one Numba kernel, planes distributed over threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from farvox.ops.fused_conv import _cpu_kernels as kernels
from farvox.ops.threads import parallel_for, split_evenly
from farvox.types import Array

_CACHE_VALUES = 1 << 17
"""Values of three padded planes per thread: 512 KB."""


def conv(
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    slope: float,
    coarse: torch.Tensor | None,
    head_weight: torch.Tensor | None,
    head_bias: torch.Tensor | None,
) -> torch.Tensor:
    """As `fused_conv`."""
    batch, _, size_i, size_j, size_k = image.shape
    outputs = weight.shape[0]
    if coarse is None:
        coarse = image.new_empty(batch, 0, 1, 1, 1)
    if head_weight is None:
        head_weight, head_bias = image.new_empty(0, outputs), image.new_empty(0)
    elif head_bias is None:
        head_bias = image.new_zeros(len(head_weight))
    assert head_bias is not None
    taps = weight.detach().reshape(outputs, weight.shape[1], 27).contiguous().numpy()
    rest = [t.detach().contiguous().numpy() for t in (bias, head_weight, head_bias)]
    tables = [_interpolation_table(coarse.shape[2 + a], image.shape[2 + a]) for a in range(3)]
    fine_array, coarse_array = (t.detach().contiguous().numpy() for t in (image, coarse))
    out = np.empty((batch, len(head_weight) or outputs, size_i, size_j, size_k), np.float32)
    rows = max(4, _CACHE_VALUES // (3 * weight.shape[1] * (size_k + 2)) - 2)

    conv_planes: Any = kernels.conv_planes

    def work(item: tuple[int, int, int]) -> None:
        member, first, last = item
        conv_planes(
            *(fine_array[member], coarse_array[member], taps, *rest, np.float32(slope)),
            *(*tables[0], *tables[1], *tables[2], first, last, min(rows, size_j), out[member]),
        )

    parts = 1 if batch % torch.get_num_threads() == 0 else torch.get_num_threads()
    parallel_for(work, [(b, planes.start, planes.stop) for b in range(batch) for planes in split_evenly(size_i, parts)])
    return torch.from_numpy(out)


def _interpolation_table(coarse: int, fine: int) -> tuple[Array, Array]:
    """For each fine voxel, the coarse voxel before it and the weight of the next; half-pixel centres, clamped."""
    position = np.clip((np.arange(fine) + 0.5) * (coarse / fine) - 0.5, 0, coarse - 1)
    low = np.minimum(position.astype(np.int64), max(coarse - 2, 0))
    return low, (position - low).astype(np.float32)
