"""Padding and cropping, so that networks with strides accept any size."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F


def pad_to_multiple(image: torch.Tensor, multiple: Sequence[int], coarsest: int = 1) -> torch.Tensor:
    """Repeat the last voxel along each spatial axis until its size is a multiple; `crop_to` undoes it.

    Edge values instead of zeros hardly change the statistics of normalisation.

    Args:
        image: (B, C, *spatial), 2D or 3D.
        multiple: Required multiple for each spatial axis, voxels.
        coarsest: Smallest number of voxels of a map reduced by `multiple`; the first axis is padded further for it.

    Returns:
        (B, C, *padded); the input itself if no padding is needed.
    """
    reduced = [-(-size // step) for size, step in zip(image.shape[2:], multiple, strict=True)]
    if prod(reduced) < coarsest:
        reduced[0] = coarsest
    padding: list[int] = []
    for size, count, step in zip(image.shape[2:], reduced, multiple, strict=True):
        padding = [0, count * step - size, *padding]
    return F.pad(image, padding, mode="replicate") if any(padding) else image


def pad_beyond(image: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last voxel of the first spatial axis if no axis is longer than `size` voxels; `crop_to` undoes it.

    Maps that padded strided convolutions reduce by `size` then have two voxels or more, as batch norm requires in
    training; larger images are not changed.

    Args:
        image: (B, C, I, J, K).
        size: Voxels.

    Returns:
        (B, C, max(I, size + 1), J, K), or the input itself.
    """
    missing = size + 1 - image.shape[2] if max(image.shape[2:]) <= size else 0
    return F.pad(image, (0, 0, 0, 0, 0, missing), mode="replicate") if missing else image


def crop_to(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first `shape` voxels along the spatial axes of (B, C, *spatial); a view."""
    for axis, size in enumerate(shape, start=2):
        image = image.narrow(axis, 0, size)
    return image
