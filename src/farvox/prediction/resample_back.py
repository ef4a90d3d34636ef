"""From class scores in network space to a label on the scan's own grid, a slab at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from farvox.geometry import Resample
from farvox.types import Array


class StreamingResampler:
    """Scores that arrive in order along K in network space, asked for in order along K on the canonical grid.

    Args:
        parts: (classes, I, J, n) tensors whose n add up to the network grid's K.
        back: Step from the network grid to the canonical grid.
    """

    def __init__(self, parts: Iterator[torch.Tensor], back: Resample) -> None:
        self._parts, self._back = parts, back
        self._held: torch.Tensor | None = None
        self._first = 0

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """(classes, I, J, stop - start) on the canonical grid; `start` must not lie before an earlier call's."""
        low, high = self._back.source_range(start, stop)
        if self._held is not None and low > self._first:
            drop = min(low - self._first, self._held.shape[-1])
            self._held = self._held[..., drop:]
            self._first += drop
        while self._held is None or self._first + self._held.shape[-1] < high:
            part = next(self._parts)
            if self._held is None or not self._held.shape[-1]:
                self._held = part
            else:
                self._held = torch.cat((self._held, part), -1)
        return self._back.apply(self._held, start, stop, offset=self._first)


def argmax_labels(
    streams: Sequence[StreamingResampler],
    shape: tuple[int, int, int],
    slab: int,
    progress: Callable[[float], None] | None = None,
) -> Array:
    """Mean of several networks' scores, then the class of the highest, `slab` slices at a time.

    Returns:
        (I, J, K) uint8 class indices on the canonical grid.
    """
    out = np.zeros(shape, dtype=np.uint8)
    for start in range(0, shape[2], slab):
        stop = min(start + slab, shape[2])
        scores = streams[0].slab(start, stop)
        for stream in streams[1:]:
            scores = scores + stream.slab(start, stop)
        out[..., start:stop] = scores.argmax(0).to(torch.uint8).cpu().numpy()
        if progress:
            progress(stop / shape[2])
    return out
