"""Matrix products of the CPU backend on ranges of rows of features, and reusable buffers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import torch

from farvox.types import Array


class Product:
    """Weights that are applied to a range of the C·K rows of features, with groups as in a grouped 1×1 convolution.

    Args:
        weight: (O, C·K / groups).
        groups: Groups of rows and outputs.
    """

    def __init__(self, weight: torch.Tensor, groups: int) -> None:
        self.outputs = weight.shape[0]
        self._weight, self._groups = weight.detach().float(), groups

    def add(self, features: torch.Tensor, first: int, total: torch.Tensor) -> None:
        """total (O, T) += weight · features (rows from `first` on, T)."""
        for outputs, columns, rows in self._parts(first, len(features)):
            total[outputs].addmm_(self._weight[outputs, columns], features[rows])

    def transposed(self, grad: torch.Tensor, first: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """out (rows from `first` on, T) = weightᵀ · grad (O, T); all rows if out is None."""
        if out is None:
            out = grad.new_empty(self._weight.shape[1] * self._groups, grad.shape[1])
        for outputs, columns, rows in self._parts(first, len(out)):
            torch.mm(self._weight[outputs, columns].t(), grad[outputs], out=out[rows])
        return out

    def outer(self, grad: torch.Tensor, features: torch.Tensor, first: int, total: torch.Tensor) -> None:
        """total, shaped as the weight, += grad (O, T) · featuresᵀ."""
        for outputs, columns, rows in self._parts(first, len(features)):
            total[outputs, columns].addmm_(grad[outputs], features[rows].t())

    def _parts(self, first: int, count: int) -> Iterator[tuple[slice, slice, slice]]:
        """Groups of rows first..first+count: outputs, columns of the weight, rows relative to first."""
        height, width = self.outputs // self._groups, self._weight.shape[1]
        for group in range(first // width, (first + count - 1) // width + 1):
            begin, end = max(first, group * width), min(first + count, (group + 1) * width)
            outputs = slice(group * height, (group + 1) * height)
            yield outputs, slice(begin - group * width, end - group * width), slice(begin - first, end - first)


def volumes(image: torch.Tensor) -> torch.Tensor:
    """(B, C, i, j, k) float32, contiguous; a 2D image gets a first axis of one voxel."""
    image = image.float().contiguous()
    return image.unsqueeze(2) if image.ndim == 4 else image


_KEPT_BYTES = 128 << 20
_free: list[Array] = []
_free_lock = threading.Lock()


def _reset_after_fork() -> None:
    """In a forked child: another thread of the parent may have locked the list."""
    global _free_lock
    _free_lock = threading.Lock()
    _free.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def acquire_buffer(count: int) -> Array:
    """(count,) float32, not initialised, reused if possible: the first use of new memory is slow."""
    with _free_lock:
        for n, array in enumerate(_free):
            if count <= array.size <= 2 * count:
                return _free.pop(n)[:count]
    return np.empty(count, np.float32)


def release_buffer(array: Array) -> None:
    """Keep a buffer for reuse, at most 128 MB in total."""
    whole = array if array.base is None else array.base
    with _free_lock:
        _free.append(whole)
        while sum(kept.nbytes for kept in _free) > _KEPT_BYTES:
            _free.pop(0)
