"""Walks over a regular grid: blocks shared out over threads, a few channels at a time, tile by tile."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from farvox.ops.sparse_sample import _cpu_grid_kernels as kernels
from farvox.ops.sparse_sample._cpu_plan import Block, Chunk, Slab, blocks, plan_grid, reach, tiles, voxels_per_unit
from farvox.ops.sparse_sample._cpu_product import Product, borrow, release_buffer, volumes
from farvox.ops.sparse_sample.sample_points import SampleGrid
from farvox.ops.threads import parallel_for, split_evenly
from farvox.types import Array

_TILE_VALUES = 1 << 18
"""Features computed at a time by each thread: 1 MB, about a core's own cache."""

_LEAST_POSITIONS = 1024
"""Positions of a tile even where that takes more room: shorter runs spend their time on getting started."""

_LEAST_ROWS = 128
"""Rows of features a matrix product should have: several channels are taken at a time where offsets are few."""


class GridSampler:
    """Every block of a grid.

    Args:
        image: (B, C, *spatial).
        offsets: (K, d) or (K, 2, d), normalised.
        grid: Where to answer.
    """

    def __init__(self, image: torch.Tensor, offsets: torch.Tensor, grid: SampleGrid) -> None:
        self.count, self.reads = offsets.shape[0], offsets.ndim - 1
        table = offsets.reshape(-1, offsets.shape[-1]).double().numpy()
        self.plan = plan_grid(tuple(image.shape[2:]), grid, table, self.reads)
        self.image = volumes(image)
        self.channels = min(image.shape[1], -(-_LEAST_ROWS // self.count))
        """Channels taken at a time."""
        self._scales = np.array([voxels_per_unit(size, grid.align_corners) for size in image.shape[2:]])
        self._blocks = blocks(image.shape[0], self.plan, torch.get_num_threads())

    def forward(self, product: Product | None, out: torch.Tensor) -> None:
        """Fill out (B, O, S), or (B, C·K, S) without a product."""
        parallel_for(partial(self._answer, product, out.unflatten(2, self.plan.shape)), self._blocks)

    def backward(
        self,
        product: Product | None,
        grad: torch.Tensor,
        grad_image: torch.Tensor | None,
        grad_offsets: torch.Tensor | None,
        grad_weight: torch.Tensor | None,
    ) -> None:
        """Add to the gradients that are wanted; grad (B, O, S) or (B, C·K, S)."""
        grad = grad.unflatten(2, self.plan.shape)
        slabs = [(block, reach(self.plan, block)) for block in self._blocks]
        shares = [_Share(self, block, slab) for block, slab in slabs if slab is not None]
        wanted = grad_image is not None, grad_offsets is not None, grad_weight
        parallel_for(lambda share: share.allocate_padded(*wanted, grad, product is not None), shares)
        for first in range(0, self.image.shape[1], self.channels):
            parallel_for(partial(_Share.differentiate, first=first, product=product, grad=grad), shares)
            if grad_image is not None:
                self._gather(shares, first, volumes(grad_image))
        for share in shares:
            if grad_offsets is not None:
                moves = share.moves[:, -len(self._scales) :] * self._scales
                grad_offsets += torch.from_numpy(moves).view(grad_offsets.shape)
            if grad_weight is not None and share.grad_weight is not None:
                grad_weight += share.grad_weight
            share.release()

    def _answer(self, product: Product | None, out: torch.Tensor, block: Block) -> None:
        slab = reach(self.plan, block)
        if slab is None:
            _part(out, block).zero_()
            return
        share = _Share(self, block, slab)
        totals: dict[Block, torch.Tensor] = {}
        for first in range(0, self.image.shape[1], self.channels):
            share.load(first)
            last = first + self.channels >= self.image.shape[1]
            for tile in share.tiles:
                for chunk in self.plan.chunks:
                    features, row = share.features(tile, chunk), first * self.count + chunk.first
                    if product is None:
                        rows = slice(row, row + len(features))
                        _part(out, tile)[rows] = share.crop_margin(features, tile)
                        continue
                    if tile not in totals:
                        totals[tile] = features.new_zeros(product.outputs, features.shape[1])
                    product.add(features, row, totals[tile])
                if last and product is not None:
                    _part(out, tile)[:] = share.crop_margin(totals.pop(tile), tile)
        share.release()

    def _gather(self, shares: list[_Share], first: int, grad_image: torch.Tensor) -> None:
        """Add the shares' slabs to the image's gradient, to each plane in the same order."""

        def add(planes: range) -> None:
            for share in shares:
                for n in range(share.taken):
                    target = grad_image[share.block.member, first + n].numpy()
                    kernels.unsplit_add(share.grad_voxels[n], *share.slab.low, target, planes.start, planes.stop)

        parallel_for(add, split_evenly(grad_image.shape[2], torch.get_num_threads()))


class _Share:
    """One block's voxels, buffers and gradients."""

    def __init__(self, walk: GridSampler, block: Block, slab: Slab) -> None:
        self._walk, self.block, self.slab = walk, block, slab
        self.taken = 0
        """Channels loaded now."""
        rows = walk.channels * max(chunk.count for chunk in walk.plan.chunks)
        self.tiles = list(tiles(block, slab.width, max(_LEAST_POSITIONS, _TILE_VALUES // rows)))
        self._largest = rows * max(self._positions(tile) for tile in self.tiles)
        self._borrowed: list[Array] = []
        self._features = torch.from_numpy(self._borrow(self._largest))
        self._voxels = self._borrow(walk.channels, *slab.shape)

    def _borrow(self, *shape: int) -> Array:
        self._borrowed.append(borrow(prod(shape)))
        return self._borrowed[-1].reshape(shape)

    def release(self) -> None:
        """Give back what was borrowed; the share is of no use after that."""
        for array in self._borrowed:
            release_buffer(array)

    def load(self, first: int) -> None:
        """Take the slab of channels `first` and following."""
        image = self._walk.image[self.block.member, first : first + self._walk.channels]
        self.taken = len(image)
        for n, channel in enumerate(image):
            kernels.split(channel.numpy(), *self.slab.low, self._voxels[n])

    def features(self, tile: Block, chunk: Chunk) -> torch.Tensor:
        """(taken · chunk, positions) features of a tile; overwritten by the next."""
        found = self._rows(self._features, tile, chunk)
        sample: Any = kernels.sample_runs if self._walk.plan.runs else kernels.sample_rows
        for n, rows in enumerate(found.numpy().reshape(self.taken, chunk.count, -1)):
            sample(self._voxels[n], *self._reads(tile, chunk), rows)
        return found

    def crop_margin(self, features: torch.Tensor, tile: Block) -> torch.Tensor:
        """(rows, positions) → (rows, i, j, k): the unused end of each row of positions left out."""
        planes, rows = tile.i1 - tile.i0, tile.j1 - tile.j0
        return features.view(-1, planes, rows, self.slab.width)[..., : self._walk.plan.shape[2]]

    def allocate_padded(
        self, image: bool, offsets: bool, weight: torch.Tensor | None, grad: torch.Tensor, weighed: bool
    ) -> None:
        """Make room for gradients; where weights come first, lay out what all channels start from."""
        shape = self._voxels.shape if image else (len(self._voxels), 0, 0, 0, 0, 0)
        self.grad_voxels = self._borrow(*shape)
        self.moves = np.zeros((self._walk.count * self._walk.reads if offsets else 0, 3))
        self.grad_weight = None if weight is None else torch.zeros_like(weight)
        self._back = torch.from_numpy(self._borrow(self._largest))
        self._given = [self._with_margin(_part(grad, tile)) for tile in self.tiles] if weighed else []

    def differentiate(self, first: int, product: Product | None, grad: torch.Tensor) -> None:
        """Gradients of channels `first` and following over all tiles; grad (B, rows, i, j, k)."""
        self.load(first)
        self.grad_voxels[: self.taken] = 0
        adjoint: Any = kernels.adjoint_runs if self._walk.plan.runs else kernels.adjoint_rows
        moved = self.grad_voxels.size or self.moves.size
        for n, tile in enumerate(self.tiles):
            for chunk in self._walk.plan.chunks:
                row = first * self._walk.count + chunk.first
                if product is None:
                    back = self._with_margin(_part(grad, tile)[row : row + self.taken * chunk.count])
                elif moved:
                    back = product.transposed(self._given[n], row, self._rows(self._back, tile, chunk))
                if moved:
                    for c, rows in enumerate(back.numpy().reshape(self.taken, chunk.count, -1)):
                        reads = self._reads(tile, chunk)
                        adjoint(self._voxels[c], *reads, rows, self.grad_voxels[c], self.moves)
                if product is not None and self.grad_weight is not None:
                    product.outer(self._given[n], self.features(tile, chunk), row, self.grad_weight)

    def _reads(self, tile: Block, chunk: Chunk) -> tuple[Any, ...]:
        """What the kernels take between voxels and features."""
        return chunk.first, chunk.order, *self.slab.tables, tile.i0, tile.i1, tile.j0, tile.j1

    def _rows(self, buffer: torch.Tensor, tile: Block, chunk: Chunk) -> torch.Tensor:
        rows = self.taken * chunk.count
        return buffer[: rows * self._positions(tile)].view(rows, -1)

    def _positions(self, tile: Block) -> int:
        return (tile.i1 - tile.i0) * (tile.j1 - tile.j0) * self.slab.width

    def _with_margin(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, i, j, k) → (rows, positions), zeros at the end of each row of positions."""
        return F.pad(values.float(), (0, self.slab.width - values.shape[3])).flatten(1)


def _part(values: torch.Tensor, block: Block) -> torch.Tensor:
    """(B, rows, i, j, k) → the part a block answers for."""
    return values[block.member, :, block.i0 : block.i1, block.j0 : block.j1]
