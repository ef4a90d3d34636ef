"""Patches drawn from preprocessed cases without reading the rest of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from farvox.geometry import patch_bounds, sample_patch
from farvox.labels import IGNORE
from farvox.preprocessing.cases import PreprocessedCase
from farvox.types import FloatArray, Shape


def choose_centre(
    case: PreprocessedCase, shape: Shape, rule: Literal["class-balanced", "uniform"], rng: np.random.Generator
) -> FloatArray:
    """Voxel (fractional) that becomes the middle of a patch of `shape`.

    `class-balanced` puts a voxel of a class drawn uniformly among those present, background included, at a random
    position of the patch's middle half; `uniform` draws among patches inside the scan. In both cases a patch extends
    outside the scan only where the scan is smaller.
    """
    size, half = np.array(case.shape), np.array(shape) / 2
    low, high = np.minimum(half, size / 2), np.maximum(size - half, size / 2)
    if rule == "uniform":
        return rng.uniform(low, high) - 0.5
    present = [voxels for voxels in case.voxels_by_class if len(voxels)]
    voxels = present[rng.integers(len(present))]
    jitter = rng.uniform(-0.25, 0.25, 3) * shape
    return np.clip(voxels[rng.integers(len(voxels))] + 0.5 + jitter, low, high) - 0.5


def sample_patch_from(
    case: PreprocessedCase, centre: FloatArray, matrix: FloatArray, shape: Shape, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample image (C, *shape) float32 and classes (*shape) uint8 around `centre` through a 3×3 voxel matrix.

    Voxels outside the scan are zero in the image and `IGNORE` in the classes.
    """
    bounds = patch_bounds(matrix, centre, shape, case.shape)
    i, j, k = bounds
    local = centre - np.array([bound.start for bound in bounds])
    image = torch.from_numpy(np.array(case.image[:, i, j, k])).to(device)
    # One is added so that the zero outside the block differs from background.
    classes = torch.from_numpy(case.classes[i, j, k].astype(np.float32) + 1).to(device)
    patch = sample_patch(image, matrix, local, shape)
    label = sample_patch(classes[None], matrix, local, shape, nearest=True)[0]
    return patch, torch.where(label == 0, float(IGNORE), label - 1).to(torch.uint8)
