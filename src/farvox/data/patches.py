"""Training cases in network space on disk, and patches drawn from them without reading the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from farvox.data.case import Case
from farvox.data.prepare import Preparation, to_network_space
from farvox.geometry import Shape, patch_bounds, sample_patch
from farvox.labels import IGNORE
from farvox.types import Array, FloatArray, IntArray

_PLACES_PER_CLASS = 4096


@dataclass(frozen=True)
class PreparedCase:
    """A case in network space, memory-mapped.

    Args:
        id: Case id.
        image: (C, I, J, K) float32, normalised.
        classes: (I, J, K) uint8 with `IGNORE`.
        places: For each class, up to 4096 of its voxels (N, 3), evenly drawn; empty where the class is absent.
        counts: Voxels of each class.
    """

    id: str
    image: Array
    classes: Array
    places: tuple[IntArray, ...]
    counts: IntArray

    @property
    def shape(self) -> Shape:
        """Voxels in network space."""
        i, j, k = self.classes.shape
        return (i, j, k)

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """Network input (C, I, J, stop - start), slices [start, stop) along K."""
        return torch.from_numpy(np.array(self.image[..., start:stop]))


def prepare_case(case: Case, preparation: Preparation, classes: int, folder: Path) -> PreparedCase:
    """Bring a labelled case to network space, store it in `folder` and open it from there."""
    space = to_network_space(case.image, case.grid, preparation)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / case.id
    image = np.lib.format.open_memmap(
        f"{stem}.image.npy", "w+", np.float32, shape=(case.image.shape[0], *space.grid.shape)
    )
    if hasattr(os, "posix_fallocate"):
        # Writing to a mapped page that the disk has no room for would kill the process; asking first is an OSError.
        with open(f"{stem}.image.npy", "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    for start in range(0, space.grid.shape[2], 32):
        stop = min(start + 32, space.grid.shape[2])
        image[..., start:stop] = space.slab(start, stop).numpy()
    image.flush()
    if case.classes is None:
        raise ValueError(f"case {case.id} has no label to train on")
    label = space.resample.apply_labels(space.orient.apply(case.classes))
    np.save(f"{stem}.classes.npy", label)
    rng = np.random.default_rng(len(case.id))
    places = []
    for index in range(classes):
        found = np.flatnonzero(label == index)
        chosen = rng.permutation(found)[:_PLACES_PER_CLASS] if found.size > _PLACES_PER_CLASS else found
        places.append(np.stack(np.unravel_index(chosen, label.shape), -1))
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=classes)
    places_by_class: dict[str, Any] = {str(index): found for index, found in enumerate(places)}
    np.savez(f"{stem}.places.npz", counts=counts, **places_by_class)
    return open_prepared(folder, case.id)


def open_prepared(folder: Path, case: str) -> PreparedCase:
    """Open what `prepare_case` stored."""
    places = np.load(folder / f"{case}.places.npz")
    counts = places["counts"]
    return PreparedCase(
        case,
        np.load(folder / f"{case}.image.npy", mmap_mode="r"),
        np.load(folder / f"{case}.classes.npy", mmap_mode="r"),
        tuple(places[str(index)] for index in range(len(counts))),
        counts,
    )


def choose_centre(
    case: PreparedCase, shape: Shape, rule: Literal["classes", "uniform"], rng: np.random.Generator
) -> FloatArray:
    """Voxel (fractional) that becomes the middle of a patch of `shape`.

    `classes` puts a voxel of a class drawn uniformly among those present, background included, at a random place
    of the patch's middle half; `uniform` draws among patches that lie inside the scan. Either way a patch reaches
    outside the scan only where the scan is smaller.
    """
    size, half = np.array(case.shape), np.array(shape) / 2
    low, high = np.minimum(half, size / 2), np.maximum(size - half, size / 2)
    if rule == "uniform":
        return rng.uniform(low, high) - 0.5
    present = [places for places in case.places if len(places)]
    places = present[rng.integers(len(present))]
    jitter = rng.uniform(-0.25, 0.25, 3) * shape
    return np.clip(places[rng.integers(len(places))] + 0.5 + jitter, low, high) - 0.5


def draw_patch(
    case: PreparedCase, centre: FloatArray, matrix: FloatArray, shape: Shape, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample image (C, *shape) float32 and classes (*shape) uint8 around `centre` through a 3×3 voxel matrix.

    Voxels outside the scan are zero in the image and `IGNORE` in the classes.
    """
    bounds = patch_bounds(matrix, centre, shape, case.shape)
    i, j, k = bounds
    local = centre - np.array([bound.start for bound in bounds])
    image = torch.from_numpy(np.array(case.image[:, i, j, k])).to(device)
    # One is added so that the zero outside the block is told from background.
    classes = torch.from_numpy(case.classes[i, j, k].astype(np.float32) + 1).to(device)
    patch = sample_patch(image, matrix, local, shape)
    label = sample_patch(classes[None], matrix, local, shape, nearest=True)[0]
    return patch, torch.where(label == 0, float(IGNORE), label - 1).to(torch.uint8)


def z_scored(patch: torch.Tensor) -> torch.Tensor:
    """Each channel of (..., C, I, J, K) at zero mean and unit spread over its voxels; a constant one becomes zero."""
    centred = patch - patch.mean((-3, -2, -1), keepdim=True)
    return centred / centred.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-6)


def class_counts(cases: Sequence[PreparedCase]) -> IntArray:
    """Voxels of each class over all cases."""
    return np.sum([case.counts for case in cases], axis=0)
