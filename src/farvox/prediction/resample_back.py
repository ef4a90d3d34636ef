"""From class probabilities on the network grid to labels on the scan's own grid, one slab at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from farvox.geometry import Resample


class StreamingResampler:
    """Resamples probabilities from the network grid to the canonical grid while they are computed, in order along K.

    Args:
        parts: (classes, I, J, n) tensors whose n add up to the K of the network grid.
        back: Transform from the network grid to the canonical grid.
    """

    def __init__(self, parts: Iterator[torch.Tensor], back: Resample) -> None:
        self._parts, self._back = parts, back
        self._buffer: torch.Tensor | None = None
        self._first = 0

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """(classes, I, J, stop - start) on the canonical grid; `start` must not decrease between calls."""
        low, high = self._back.source_range(start, stop)
        if self._buffer is not None and low > self._first:
            drop = min(low - self._first, self._buffer.shape[-1])
            self._buffer = self._buffer[..., drop:]
            self._first += drop
        while self._buffer is None or self._first + self._buffer.shape[-1] < high:
            part = next(self._parts)
            if self._buffer is None or not self._buffer.shape[-1]:
                self._buffer = part
            else:
                self._buffer = torch.cat((self._buffer, part), -1)
        return self._back.apply(self._buffer, start, stop, offset=self._first)


def mean_probabilities(
    streams: Sequence[StreamingResampler],
    n_slices: int,
    slab: int,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Mean probabilities of several networks on the canonical grid, `slab` slices at a time.

    Yields:
        The slices along K, and their (classes, I, J, n) probabilities.
    """
    for start in range(0, n_slices, slab):
        stop = min(start + slab, n_slices)
        total = streams[0].slab(start, stop)
        for stream in streams[1:]:
            total = total + stream.slab(start, stop)
        yield slice(start, stop), total / len(streams)
        if progress:
            progress(stop / n_slices)
