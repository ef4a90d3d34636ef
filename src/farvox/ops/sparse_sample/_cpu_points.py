"""Sampling at free points, tile by tile, a range of points per thread."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from farvox.ops.sparse_sample import _cpu_point_kernels as kernels
from farvox.ops.sparse_sample._cpu_lattice import find_lattice
from farvox.ops.sparse_sample._cpu_product import Product, volumes
from farvox.ops.sparse_sample.sample_points import FreePoints
from farvox.ops.threads import parallel_for, split_evenly
from farvox.types import Array

_TILE_VALUES = 1 << 18
"""Features per tile: 1 MB."""
_NONE = np.empty((0, 3, 3), np.float32)


class PointSampler:
    """Samples images at free points.

    Args:
        image: (B, C, *spatial).
        offsets: (K, d) or (K, 2, d), normalised.
        points: Positions and transforms of offsets.
    """

    def __init__(self, image: torch.Tensor, offsets: torch.Tensor, points: FreePoints) -> None:
        sizes = torch.tensor(image.shape[2:])
        self._image = volumes(image)
        self._count, self._reads = offsets.shape[0], offsets.ndim - 1
        lift = (3 - len(sizes), 0)  # a 2D image is one plane, at 0 along its first axis
        reads = offsets.float() * sizes / 2
        reads = reads if self._reads == 1 else torch.cat((reads[:, 0], reads[:, 1]))  # second offsets of pairs last
        self._offsets = F.pad(reads, lift).t().contiguous().numpy()
        positions = points.positions.detach()
        self._positions = F.pad(((positions.float() + 1) * sizes - 1) / 2, lift).contiguous().numpy()
        self._transforms = _in_voxels(points.offset_transforms, sizes)
        self._scales = sizes.numpy()[:, None] / 2
        channels, (i, j, k) = image.shape[1], self._image.shape[2:]
        # For many points, a copy with contiguous channels is worthwhile.
        many = self._offsets.shape[1] * positions.shape[1] > i * j * k
        self._inner = channels > 1 and many
        steps = (1, j * k * channels, k * channels, channels) if self._inner else (i * j * k, j * k, k, 1)
        self._sizes, self._steps = np.array((i, j, k)), np.array(steps)
        self._tile = max(16, min(256, _TILE_VALUES // (channels * self._count)))

    def forward(self, product: Product | None, out: torch.Tensor) -> None:
        """Fill out (B, O, S), or (B, C·K, S) without a product."""
        for member in range(len(self._image)):
            work = partial(self._forward_tiles, member, self._flat(member), product, out[member])
            parallel_for(work, split_evenly(out.shape[2], torch.get_num_threads()))

    def backward(
        self,
        product: Product | None,
        grad: torch.Tensor,
        grad_image: torch.Tensor | None,
        grad_offsets: torch.Tensor | None,
        grad_weight: torch.Tensor | None,
    ) -> None:
        """Add to the gradients that are not None; grad (B, O, S) or (B, C·K, S)."""
        for member in range(len(self._image)):
            flat = self._flat(member)
            needs = grad_image is not None, grad_offsets is not None, grad_weight
            sums = [_GradientSums(run, self, *needs) for run in split_evenly(grad.shape[2], torch.get_num_threads())]
            parallel_for(partial(self._differentiate, member, flat, product, grad[member]), sums)
            for partial_sum in sums:
                if grad_image is not None:
                    volumes(grad_image)[member] += self._unflat(partial_sum.image)
                if grad_offsets is not None:
                    moves = (partial_sum.offset_grads[-len(self._scales) :] * self._scales).reshape(
                        -1, self._reads, self._count
                    )
                    grad_offsets += torch.from_numpy(moves).permute(2, 1, 0).reshape(grad_offsets.shape)
                if grad_weight is not None and partial_sum.weight is not None:
                    grad_weight += partial_sum.weight

    def _forward_tiles(self, member: int, flat: Array, product: Product | None, out: torch.Tensor, run: range) -> None:
        for span in self._tiles(run):
            features = self._features(flat, member, span)
            if product is not None:
                total = features.new_zeros(product.outputs, features.shape[1])
                product.add(features, 0, total)
                features = total
            out[:, span] = features

    def _differentiate(
        self, member: int, flat: Array, product: Product | None, grad: torch.Tensor, sums: _GradientSums
    ) -> None:
        for span in self._tiles(sums.run):
            grad_tile = grad[:, span].float()
            if sums.image.size or sums.offset_grads.size:
                back = grad_tile if product is None else product.transposed(grad_tile, 0)
                rows = back.t().unflatten(1, (-1, self._count)).contiguous().numpy()
                kernels.adjoint_points(flat, *self._kernel_arguments(member, span), rows, sums.image, sums.offset_grads)
            if product is not None and sums.weight is not None:
                product.outer(grad_tile, self._features(flat, member, span), 0, sums.weight)

    def _features(self, flat: Array, member: int, span: slice) -> torch.Tensor:
        """(C·K, T) features."""
        count, channels = span.stop - span.start, self._image.shape[1]
        if self._lattice is not None and (rows := self._lattice.sample(span)) is not None:
            return torch.from_numpy(rows).flatten(0, 1)
        features = np.empty((count, channels, self._count), np.float32)
        kernels.sample_points(flat, *self._kernel_arguments(member, span), features)
        return torch.from_numpy(features).flatten(1).t()

    def _kernel_arguments(self, member: int, span: slice) -> tuple[Any, ...]:
        """Arguments of both kernels."""
        offset_transforms = _NONE if self._transforms is None else self._transforms[member, span]
        return self._sizes, self._steps, self._positions[member, span], offset_transforms, self._offsets, self._reads

    def _flat(self, member: int) -> Array:
        image = self._image[member]
        flat: Array = (image.movedim(0, -1) if self._inner else image).contiguous().view(-1).numpy()
        self._lattice = None
        if self._transforms is None:
            self._lattice = find_lattice(image, self._positions[member], self._offsets, self._reads)
        return flat

    def _unflat(self, flat: Array) -> torch.Tensor:
        channels, *sizes = self._image.shape[1:]
        values = torch.from_numpy(flat)
        return values.view(*sizes, channels).movedim(-1, 0) if self._inner else values.view(channels, *sizes)

    def _tiles(self, run: range) -> Iterator[slice]:
        for first in range(run.start, run.stop, self._tile):
            yield slice(first, min(first + self._tile, run.stop))


def _in_voxels(offset_transforms: torch.Tensor | None, sizes: torch.Tensor) -> Array | None:
    """(B, S, 3, 3) for voxels instead of normalised units; for 2D images, the identity along the first axis."""
    if offset_transforms is None:
        return None
    scaled = offset_transforms.detach().float() * sizes[:, None] / sizes
    whole = torch.eye(3).repeat(*offset_transforms.shape[:2], 1, 1)
    whole[..., -len(sizes) :, -len(sizes) :] = scaled
    array: Array = whole.numpy()
    return array


class _GradientSums:
    """Gradients of one thread; empty if not needed."""

    def __init__(self, run: range, walk: PointSampler, image: bool, offsets: bool, weight: torch.Tensor | None) -> None:
        self.run = run
        self.image = np.zeros(walk._image[0].numel() if image else 0, np.float32)
        self.offset_grads = np.zeros((3, walk._offsets.shape[1] if offsets else 0))
        self.weight = None if weight is None else torch.zeros_like(weight)
