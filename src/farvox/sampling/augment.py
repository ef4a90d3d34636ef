"""Random change of training patches: affine in mm, mirroring with left/right labels, intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from farvox.geometry import mm_to_voxel_matrix
from farvox.labels import IGNORE, LabelTable
from farvox.types import FloatArray

AXES = ("left-right", "posterior-anterior", "inferior-superior")


def random_matrices(
    count: int, strength: float, spacing: Sequence[float] | FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(count, 3, 3) voxel matrices of random affine changes: identity plus `strength` times normal draws, in mm.

    One draw turns, scales and shears at once (OBELISK, MIDL 2018, section 2.1). Entries beyond two standard
    deviations are drawn back, so that the matrix stays invertible.
    """
    change = strength * np.clip(rng.standard_normal((count, 3, 3)), -2, 2)
    return mm_to_voxel_matrix(np.eye(3) + change, np.asarray(spacing))


def flip(
    image: torch.Tensor, classes: torch.Tensor, axes: Sequence[str], labels: LabelTable, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror (C, I, J, K) and (I, J, K) along each named axis half of the time.

    Mirroring left to right swaps labels that are a left/right pair, so that a left kidney stays a left kidney.
    """
    for name in axes:
        if rng.random() < 0.5:
            axis = AXES.index(name)
            image, classes = image.flip(axis + 1), classes.flip(axis)
            if axis == 0:
                table = np.arange(IGNORE + 1, dtype=np.uint8)
                table[: labels.classes] = labels.mirror_classes
                classes = torch.from_numpy(table).to(classes.device)[classes.long()]
    return image, classes


def augment_intensities(
    image: torch.Tensor, contrast: float, brightness: float, gamma: float, noise: float, rng: np.random.Generator
) -> torch.Tensor:
    """Contrast, brightness, gamma and noise on normalised intensities (C, I, J, K), each channel on its own."""
    out = image.clone()
    for channel in out:
        if gamma:
            low, high = channel.min(), channel.max()
            span = (high - low).clamp_min(1e-6)
            channel.sub_(low).div_(span).pow_(float(np.exp(gamma * rng.standard_normal()))).mul_(span).add_(low)
        if contrast or brightness:
            channel.mul_(float(np.exp(contrast * rng.standard_normal())))
            channel.add_(float(brightness * rng.standard_normal()))
        if noise:
            generator = torch.Generator(device=channel.device).manual_seed(int(rng.integers(2**62)))
            sd = float(rng.uniform(0, noise))
            channel.add_(sd * torch.randn(channel.shape, generator=generator, device=channel.device))
    return out
