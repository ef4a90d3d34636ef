"""Plan of sampling on a regular grid for the CPU kernels: voxels of each sample, chunks, blocks and tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from farvox.ops.sparse_sample.sample_points import SampleGrid
from farvox.ops.threads import split_evenly
from farvox.types import Array, FloatArray, IntArray

_CHUNK = 256
"""Largest number of offsets in a chunk."""


@dataclass(frozen=True)
class Axis:
    """Samples along one axis of an image of `size` voxels; R samples, N outputs.

    Args:
        size: Voxels of the image.
        low: (R, N) lower of the two voxels, from -1 (outside) to size - 1 where `valid`.
        frac: (R, N) distance from it, voxels.
        valid: (R, 2) first and one past the last output that touches the image.
        step: Voxels from one output to the next, 0 if that is not a whole number.
    """

    size: int
    low: IntArray
    frac: FloatArray
    valid: IntArray
    step: int

    def sampled_range(self, first: int, last: int) -> tuple[IntArray, IntArray, Array]:
        """For each sample, over outputs first..last: lowest lower voxel, highest upper voxel, whether any is valid."""
        begin, end = np.maximum(first, self.valid[:, 0]), np.minimum(last, self.valid[:, 1])
        used = begin < end
        read = np.arange(len(begin))
        begin, end = np.where(used, begin, 0), np.where(used, end - 1, 0)
        return self.low[read, begin], self.low[read, end] + 1, used


def voxels_per_unit(size: int, align_corners: bool) -> float:
    """Voxels per normalised unit."""
    return (size - 1) / 2 if align_corners else size / 2


def axis_samples(size: int, outputs: int, align_corners: bool, offsets: FloatArray, start: int, stop: int) -> Axis:
    """Samples of outputs start..stop; `offsets` (R,), normalised; NaN and infinity are outside of the image."""
    with np.errstate(invalid="ignore", over="ignore"):
        shift = offsets.astype(np.float64) * voxels_per_unit(size, align_corners)
    shift = np.where(np.abs(shift) < 4 * size + 4, shift, 4 * size + 4.0)
    if align_corners:
        span, parts, begin = (size - 1, outputs - 1, 0.0) if outputs > 1 else (1, 1, (size - 1) / 2)
    else:
        span, parts, begin = size, outputs, (size / outputs - 1) / 2
    index = np.arange(start, stop)
    if span % parts == 0:
        step = span // parts
        at = (begin + shift)[:, None]
        low = np.floor(at)
        frac = np.broadcast_to(at - low, (len(shift), len(index)))
        low = low + step * index
    else:
        step = 0
        at = begin + shift[:, None] + index * (span / parts)
        low = np.floor(at)
        frac = at - low
    touches = (low >= -1) & (low < size)
    count = touches.sum(1)
    first = np.where(count, touches.argmax(1), 0) if len(index) else count
    valid = np.stack((first, first + count), 1)
    return Axis(size, low.astype(np.int64), np.ascontiguousarray(frac, np.float32), valid, step)


@dataclass(frozen=True)
class Chunk:
    """Offsets whose features are computed together, few enough for the cache of a core.

    Args:
        first: First of them.
        order: (1, or 2 for pairs, count) the order of computation, relative to `first`: offsets that sample
            neighbouring planes of the image are consecutive.
    """

    first: int
    order: IntArray

    @property
    def count(self) -> int:
        """Number of offsets."""
        return self.order.shape[1]


@dataclass(frozen=True)
class GridPlan:
    """Samples along three axes; a 2D image has a first axis of one voxel.

    Args:
        axes: Samples along i, j and k.
        phases: Steps along j and k if both are whole numbers, so that samples are contiguous runs; else (1, 1).
        runs: Whether the kernels for whole steps apply.
        chunks: The offsets, in chunks.
    """

    axes: tuple[Axis, Axis, Axis]
    phases: tuple[int, int]
    runs: bool
    chunks: tuple[Chunk, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Outputs along each axis."""
        i, j, k = (axis.low.shape[1] for axis in self.axes)
        return i, j, k


def plan_grid(image_shape: tuple[int, ...], grid: SampleGrid, offsets: FloatArray, reads: int) -> GridPlan:
    """Plan for a grid; `offsets` (R, d), normalised; `reads` consecutive ones belong to one entry of the kernel."""
    shape, start = grid.shape, grid.start
    stop = start + grid.output_shape[0]
    if len(image_shape) == 2:
        image_shape, shape = (1, *image_shape), (1, *shape)
        offsets = np.concatenate((np.zeros_like(offsets[:, :1]), offsets), 1)
        ranges = ((0, 1), (start, stop), (0, shape[2]))
    else:
        ranges = ((start, stop), (0, shape[1]), (0, shape[2]))
    i, j, k = (axis_samples(image_shape[a], shape[a], grid.align_corners, offsets[:, a], *ranges[a]) for a in range(3))
    runs = j.step > 0 and k.step > 0
    planes = i.low[:, :1] if i.low.shape[1] else np.zeros((len(offsets), 1))
    planes = planes.reshape(-1, reads)
    chunks = []
    for part in np.array_split(np.arange(len(planes)), math.ceil(len(planes) / _CHUNK)):
        order = np.argsort(planes[part], axis=0, kind="stable")
        chunks.append(Chunk(int(part[0]), np.ascontiguousarray(order.T)))
    return GridPlan((i, j, k), (j.step, k.step) if runs else (1, 1), runs, tuple(chunks))


@dataclass(frozen=True)
class Block:
    """Outputs i0..i1, j0..j1 (all of k) of one batch member."""

    member: int
    i0: int
    i1: int
    j0: int
    j1: int


def blocks(batch: int, plan: GridPlan, threads: int) -> list[Block]:
    """Blocks of equal size, one per thread or more."""
    size_i, size_j, size_k = plan.shape
    if min(batch, size_i, size_j, size_k) == 0:
        return []
    parts = 1 if batch % threads == 0 else threads
    along_i = size_i >= min(size_j, 4 * parts)
    return [
        Block(member, part.start, part.stop, 0, size_j) if along_i else Block(member, 0, size_i, part.start, part.stop)
        for member in range(batch)
        for part in split_evenly(size_i if along_i else size_j, parts)
    ]


def tiles(block: Block, pitch: int, positions: int) -> Iterator[Block]:
    """Tiles of a block, with about that many positions, `pitch` per row."""
    rows = max(1, positions // pitch)
    height = block.j1 - block.j0
    planes = max(1, rows // height)
    step_j = height if planes > 1 else math.ceil(height / math.ceil(height / rows))
    for i in range(block.i0, block.i1, planes):
        for j in range(block.j0, block.j1, step_j):
            yield Block(block.member, i, min(i + planes, block.i1), j, min(j + step_j, block.j1))


@dataclass(frozen=True)
class Slab:
    """The voxels that a block samples, and its samples relative to the first voxel: arguments of the kernels.

    Args:
        low: First voxel along each axis; may be outside the image.
        shape: (planes, phases j, phases k, rows, pitch).
        tables: Arguments of the kernels between a chunk and the block's ranges.
        width: Positions of a row of features.
    """

    low: tuple[int, int, int]
    shape: tuple[int, int, int, int, int]
    tables: tuple[Array, ...]
    width: int


def slab_of_block(plan: GridPlan, block: Block) -> Slab | None:
    """The slab of a block; None if all its samples are outside of the image."""
    i, j, k = plan.axes
    outputs = ((block.i0, block.i1), (block.j0, block.j1), (0, plan.shape[2]))
    ends = [axis.sampled_range(*span) for axis, span in zip(plan.axes, outputs, strict=True)]
    used = ends[0][2] & ends[1][2] & ends[2][2]
    if not used.any():
        return None
    low_i, low_j, low_k = (int(low[used].min()) for low, _, _ in ends)
    size_i, size_j, size_k = (
        int(high[used].max()) - low + 1 for (_, high, _), low in zip(ends, (low_i, low_j, low_k), strict=True)
    )
    phases_j, phases_k = plan.phases
    pitch = math.ceil(size_k / phases_k)
    valid_k = np.where(used[:, None], k.valid, 0)
    table_i = _relative_to(i, low_i, used)
    tables: tuple[Array, ...]
    if plan.runs:
        pitch = max(pitch, plan.shape[2])
        tables = (
            *(table_i, i.frac),
            *(j.low[:, 0] - low_j, np.ascontiguousarray(j.frac[:, 0]), j.valid),
            *(k.low[:, 0] - low_k, np.ascontiguousarray(k.frac[:, 0]), valid_k),
        )
        width = pitch
    else:
        tables = (table_i, i.frac, _relative_to(j, low_j, used), j.frac, k.low - low_k, k.frac, valid_k)
        width = plan.shape[2]
    shape = (size_i, phases_j, phases_k, math.ceil(size_j / phases_j), pitch)
    return Slab((low_i, low_j, low_k), shape, tables, width)


def _relative_to(axis: Axis, low: int, used: Array) -> IntArray:
    """(R, N) lower voxels relative to `low`, -1 outside of the image."""
    touches = (axis.low >= -1) & (axis.low < axis.size) & used[:, None]
    return np.where(touches, axis.low - low, -1)
