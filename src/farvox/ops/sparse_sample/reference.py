"""Sparse sampling in plain PyTorch, by grid_sample, also in float64."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

_CHUNK_VALUES = 1 << 24
"""Samples per chunk; 64 MB in float32."""


def sample(
    image: torch.Tensor,
    offsets: torch.Tensor,
    positions: torch.Tensor,
    align_corners: bool,
    offset_transforms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample the image at every position + offset.

    Args:
        image: (B, C, *spatial), d spatial axes; half precision is sampled in float32.
        offsets: (K, d) or (K, 2, d), normalised, array axis order; float32, or float64 for a float64 image.
        positions: (B, S, d) or (1, S, d), likewise.
        align_corners: Whether ±1 are centres of corner voxels.
        offset_transforms: (B, S, d, d), each multiplies the offsets of its position, or None.

    Returns:
        (B, C, K, S) of the image's dtype.
    """
    if 0 in (image.shape[0], positions.shape[1]):
        # grid_sample does not accept empty tensors; the gradients are zero.
        zero = 0 * (image.sum() + offsets.sum())
        return zero.expand(image.shape[0], image.shape[1], offsets.shape[0], positions.shape[1])
    batch, dims = image.shape[0], image.ndim - 2
    shifts = offsets.reshape(1, -1, 1, dims)
    if offset_transforms is not None:
        shifts = torch.einsum("bsij,rj->brsi", offset_transforms, offsets.reshape(-1, dims))
    locations = positions[:, None] + shifts  # (B or 1, K or 2K, S, d)
    # Beyond 4 everything is outside; grid_sample would compute invalid indices from NaN or 1e30.
    finite = locations.isfinite().all(-1)
    locations = locations.clamp(-4, 4).masked_fill(~finite.unsqueeze(-1), 4)
    locations = locations.flip(-1).expand(batch, -1, -1, -1)
    if dims == 3:
        locations = locations.unsqueeze(3)
    samples = F.grid_sample(image.to(locations.dtype), locations, padding_mode="zeros", align_corners=align_corners)
    # With align_corners an axis of one voxel has no outside, so that samples at NaN must be set to zero here.
    samples = samples.flatten(2).unflatten(2, finite.shape[1:]).masked_fill(~finite.unsqueeze(1), 0)
    samples = samples.reshape(
        *samples.shape[:2], *offsets.shape[:-1], positions.shape[1]
    )  # (B, C, K, S) or (B, C, K, 2, S)
    return (samples if offsets.ndim == 2 else samples[:, :, :, 0] - samples[:, :, :, 1]).to(image.dtype)


def conv(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    positions: torch.Tensor,
    align_corners: bool,
    groups: int,
    offset_transforms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted sums of samples, one chunk of positions at a time; weight (O, C·K / groups) → (B, O, S)."""
    per_position = image.shape[0] * image.shape[1] * (offsets.numel() // offsets.shape[-1])
    length = max(1, _CHUNK_VALUES // max(1, per_position))
    chunks = positions.split(length, dim=1)
    transforms = [None] * len(chunks) if offset_transforms is None else offset_transforms.split(length, dim=1)
    work = partial(_conv_chunk, image, offsets, weight, align_corners=align_corners, groups=groups)
    if len(chunks) == 1:
        return work(positions, offset_transforms)
    # Without checkpoints, autograd would store the samples of all chunks until the backward pass.
    return torch.cat(
        [checkpoint(work, *part, use_reentrant=False) for part in zip(chunks, transforms, strict=True)], dim=2
    )


def _conv_chunk(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    positions: torch.Tensor,
    offset_transforms: torch.Tensor | None,
    align_corners: bool,
    groups: int,
) -> torch.Tensor:
    features = sample(image, offsets, positions, align_corners, offset_transforms).flatten(1, 2)  # (B, C·K, S)
    return (weight.unflatten(0, (groups, -1)) @ features.unflatten(1, (groups, -1))).flatten(1, 2).to(image.dtype)
