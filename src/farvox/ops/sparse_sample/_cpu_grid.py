"""Sampling on a regular grid: blocks distributed over threads, a few channels at a time, tile by tile."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from farvox.ops.sparse_sample import _cpu_grid_kernels as kernels
from farvox.ops.sparse_sample._cpu_plan import (
    Block,
    Chunk,
    Slab,
    blocks,
    plan_grid,
    slab_of_block,
    tiles,
    voxels_per_unit,
)
from farvox.ops.sparse_sample._cpu_product import Product, acquire_buffer, release_buffer, volumes
from farvox.ops.sparse_sample.sample_points import SampleGrid
from farvox.ops.threads import parallel_for, split_evenly
from farvox.types import Array

_TILE_VALUES = 1 << 18
"""Features per tile: 1 MB, about the cache of a core."""

_MIN_POSITIONS = 1024
"""Smallest number of positions of a tile: shorter runs are dominated by overhead."""

_MIN_ROWS = 128
"""Rows of a matrix product: with few offsets, several channels are computed at a time."""


class GridSampler:
    """Samples an image on a grid.

    Args:
        image: (B, C, *spatial).
        offsets: (K, d) or (K, 2, d), normalised.
        grid: Output positions.
    """

    def __init__(self, image: torch.Tensor, offsets: torch.Tensor, grid: SampleGrid) -> None:
        self.count, self.reads = offsets.shape[0], offsets.ndim - 1
        table = offsets.reshape(-1, offsets.shape[-1]).double().numpy()
        self.plan = plan_grid(tuple(image.shape[2:]), grid, table, self.reads)
        self.image = volumes(image)
        self.channels = min(image.shape[1], -(-_MIN_ROWS // self.count))
        """Channels computed at a time."""
        self._scales = np.array([voxels_per_unit(size, grid.align_corners) for size in image.shape[2:]])
        self._blocks = blocks(image.shape[0], self.plan, torch.get_num_threads())

    def forward(self, product: Product | None, out: torch.Tensor) -> None:
        """Fill out (B, O, S), or (B, C·K, S) without a product."""
        parallel_for(partial(self._forward_block, product, out.unflatten(2, self.plan.shape)), self._blocks)

    def backward(
        self,
        product: Product | None,
        grad: torch.Tensor,
        grad_image: torch.Tensor | None,
        grad_offsets: torch.Tensor | None,
        grad_weight: torch.Tensor | None,
    ) -> None:
        """Add to the gradients that are not None; grad (B, O, S) or (B, C·K, S)."""
        grad = grad.unflatten(2, self.plan.shape)
        slabs = [(block, slab_of_block(self.plan, block)) for block in self._blocks]
        buffers = [_BlockBuffers(self, block, slab) for block, slab in slabs if slab is not None]
        needs = grad_image is not None, grad_offsets is not None, grad_weight
        parallel_for(lambda buffer: buffer.allocate_padded(*needs, grad, product is not None), buffers)
        for first in range(0, self.image.shape[1], self.channels):
            parallel_for(partial(_BlockBuffers.differentiate, first=first, product=product, grad=grad), buffers)
            if grad_image is not None:
                self._gather(buffers, first, volumes(grad_image))
        for buffer in buffers:
            if grad_offsets is not None:
                moves = buffer.offset_grads[:, -len(self._scales) :] * self._scales
                grad_offsets += torch.from_numpy(moves).view(grad_offsets.shape)
            if grad_weight is not None and buffer.grad_weight is not None:
                grad_weight += buffer.grad_weight
            buffer.release()

    def _forward_block(self, product: Product | None, out: torch.Tensor, block: Block) -> None:
        slab = slab_of_block(self.plan, block)
        if slab is None:
            _values_of_block(out, block).zero_()
            return
        buffer = _BlockBuffers(self, block, slab)
        totals: dict[Block, torch.Tensor] = {}
        for first in range(0, self.image.shape[1], self.channels):
            buffer.load(first)
            last = first + self.channels >= self.image.shape[1]
            for tile in buffer.tiles:
                for chunk in self.plan.chunks:
                    features, row = buffer.features(tile, chunk), first * self.count + chunk.first
                    if product is None:
                        rows = slice(row, row + len(features))
                        _values_of_block(out, tile)[rows] = buffer.crop_margin(features, tile)
                        continue
                    if tile not in totals:
                        totals[tile] = features.new_zeros(product.outputs, features.shape[1])
                    product.add(features, row, totals[tile])
                if last and product is not None:
                    _values_of_block(out, tile)[:] = buffer.crop_margin(totals.pop(tile), tile)
        buffer.release()

    def _gather(self, buffers: list[_BlockBuffers], first: int, grad_image: torch.Tensor) -> None:
        """Add the slabs of all blocks to the image's gradient, in the same order for each plane."""

        def add(planes: range) -> None:
            for buffer in buffers:
                for n in range(buffer.n_channels):
                    target = grad_image[buffer.block.member, first + n].numpy()
                    kernels.unsplit_add(buffer.grad_voxels[n], *buffer.slab.low, target, planes.start, planes.stop)

        parallel_for(add, split_evenly(grad_image.shape[2], torch.get_num_threads()))


class _BlockBuffers:
    """One block's voxels, buffers and gradients."""

    def __init__(self, walk: GridSampler, block: Block, slab: Slab) -> None:
        self._walk, self.block, self.slab = walk, block, slab
        self.n_channels = 0
        """Number of loaded channels."""
        rows = walk.channels * max(chunk.count for chunk in walk.plan.chunks)
        self.tiles = list(tiles(block, slab.width, max(_MIN_POSITIONS, _TILE_VALUES // rows)))
        self._largest = rows * max(self._positions(tile) for tile in self.tiles)
        self._acquired: list[Array] = []
        self._features = torch.from_numpy(self._acquire(self._largest))
        self._voxels = self._acquire(walk.channels, *slab.shape)

    def _acquire(self, *shape: int) -> Array:
        self._acquired.append(acquire_buffer(prod(shape)))
        return self._acquired[-1].reshape(shape)

    def release(self) -> None:
        """Release the buffers, which must not be used afterwards."""
        for array in self._acquired:
            release_buffer(array)

    def load(self, first: int) -> None:
        """Load the slab of channels `first` and following."""
        image = self._walk.image[self.block.member, first : first + self._walk.channels]
        self.n_channels = len(image)
        for n, channel in enumerate(image):
            kernels.split(channel.numpy(), *self.slab.low, self._voxels[n])

    def features(self, tile: Block, chunk: Chunk) -> torch.Tensor:
        """(n_channels · chunk, positions) features of a tile; overwritten by the next."""
        features = self._rows(self._features, tile, chunk)
        sample: Any = kernels.sample_runs if self._walk.plan.runs else kernels.sample_rows
        for n, rows in enumerate(features.numpy().reshape(self.n_channels, chunk.count, -1)):
            sample(self._voxels[n], *self._reads(tile, chunk), rows)
        return features

    def crop_margin(self, features: torch.Tensor, tile: Block) -> torch.Tensor:
        """(rows, positions) → (rows, i, j, k), without the unused end of each row of positions."""
        planes, rows = tile.i1 - tile.i0, tile.j1 - tile.j0
        return features.view(-1, planes, rows, self.slab.width)[..., : self._walk.plan.shape[2]]

    def allocate_padded(
        self, image: bool, offsets: bool, weight: torch.Tensor | None, grad: torch.Tensor, weighted: bool
    ) -> None:
        """Allocate buffers for gradients, and copies of the output's gradient if weights are applied first."""
        shape = self._voxels.shape if image else (len(self._voxels), 0, 0, 0, 0, 0)
        self.grad_voxels = self._acquire(*shape)
        self.offset_grads = np.zeros((self._walk.count * self._walk.reads if offsets else 0, 3))
        self.grad_weight = None if weight is None else torch.zeros_like(weight)
        self._back = torch.from_numpy(self._acquire(self._largest))
        self._grad_tiles = [self._with_margin(_values_of_block(grad, tile)) for tile in self.tiles] if weighted else []

    def differentiate(self, first: int, product: Product | None, grad: torch.Tensor) -> None:
        """Gradients of channels `first` and following over all tiles; grad (B, rows, i, j, k)."""
        self.load(first)
        self.grad_voxels[: self.n_channels] = 0
        adjoint: Any = kernels.adjoint_runs if self._walk.plan.runs else kernels.adjoint_rows
        moved = self.grad_voxels.size or self.offset_grads.size
        for n, tile in enumerate(self.tiles):
            for chunk in self._walk.plan.chunks:
                row = first * self._walk.count + chunk.first
                if product is None:
                    back = self._with_margin(_values_of_block(grad, tile)[row : row + self.n_channels * chunk.count])
                elif moved:
                    back = product.transposed(self._grad_tiles[n], row, self._rows(self._back, tile, chunk))
                if moved:
                    for c, rows in enumerate(back.numpy().reshape(self.n_channels, chunk.count, -1)):
                        reads = self._reads(tile, chunk)
                        adjoint(self._voxels[c], *reads, rows, self.grad_voxels[c], self.offset_grads)
                if product is not None and self.grad_weight is not None:
                    product.outer(self._grad_tiles[n], self.features(tile, chunk), row, self.grad_weight)

    def _reads(self, tile: Block, chunk: Chunk) -> tuple[Any, ...]:
        """Arguments of the kernels between voxels and features."""
        return chunk.first, chunk.order, *self.slab.tables, tile.i0, tile.i1, tile.j0, tile.j1

    def _rows(self, buffer: torch.Tensor, tile: Block, chunk: Chunk) -> torch.Tensor:
        rows = self.n_channels * chunk.count
        return buffer[: rows * self._positions(tile)].view(rows, -1)

    def _positions(self, tile: Block) -> int:
        return (tile.i1 - tile.i0) * (tile.j1 - tile.j0) * self.slab.width

    def _with_margin(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, i, j, k) → (rows, positions), zeros at the end of each row of positions."""
        return F.pad(values.float(), (0, self.slab.width - values.shape[3])).flatten(1)


def _values_of_block(values: torch.Tensor, block: Block) -> torch.Tensor:
    """(B, rows, i, j, k) → the values of one block."""
    return values[block.member, :, block.i0 : block.i1, block.j0 : block.j1]
