"""Training cases in network space on disk, memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farvox.data.dataset import LoadedCase
from farvox.labels import IGNORE
from farvox.preprocessing.config import Preprocessing
from farvox.preprocessing.preprocess import preprocess
from farvox.types import Array, IntArray, Shape

_VOXELS_PER_CLASS = 4096


@dataclass(frozen=True)
class PreprocessedCase:
    """A case in network space, memory-mapped.

    Args:
        id: Case id.
        image: (C, I, J, K) float32, normalised.
        classes: (I, J, K) uint8 with `IGNORE`.
        voxels_by_class: For each class, up to 4096 of its voxels (N, 3), evenly drawn; empty where the class is absent.
        counts: Voxels of each class.
    """

    id: str
    image: Array
    classes: Array
    voxels_by_class: tuple[IntArray, ...]
    counts: IntArray

    @property
    def shape(self) -> Shape:
        """Voxels in network space."""
        i, j, k = self.classes.shape
        return (i, j, k)

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """Network input (C, I, J, stop - start), slices [start, stop) along K."""
        return torch.from_numpy(np.array(self.image[..., start:stop]))


def preprocess_case(case: LoadedCase, preprocessing: Preprocessing, classes: int, folder: Path) -> PreprocessedCase:
    """Bring a labelled case to network space, store it in `folder` and open it from there."""
    space = preprocess(case.image, case.grid, preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / case.id
    image = np.lib.format.open_memmap(
        f"{stem}.image.npy", "w+", np.float32, shape=(case.image.shape[0], *space.grid.shape)
    )
    if hasattr(os, "posix_fallocate"):
        # A full disk would kill the process when a mapped page is written; allocating first raises an OSError instead.
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
    voxels_by_class = []
    for index in range(classes):
        voxels = np.flatnonzero(label == index)
        kept = rng.permutation(voxels)[:_VOXELS_PER_CLASS] if voxels.size > _VOXELS_PER_CLASS else voxels
        voxels_by_class.append(np.stack(np.unravel_index(kept, label.shape), -1))
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=classes)
    arrays: dict[str, Any] = {str(index): voxels for index, voxels in enumerate(voxels_by_class)}
    np.savez(f"{stem}.voxels_by_class.npz", counts=counts, **arrays)
    return open_preprocessed(folder, case.id)


def open_preprocessed(folder: Path, case: str) -> PreprocessedCase:
    """Open what `preprocess_case` stored."""
    stored = np.load(folder / f"{case}.voxels_by_class.npz")
    counts = stored["counts"]
    return PreprocessedCase(
        case,
        np.load(folder / f"{case}.image.npy", mmap_mode="r"),
        np.load(folder / f"{case}.classes.npy", mmap_mode="r"),
        tuple(stored[str(index)] for index in range(len(counts))),
        counts,
    )


def class_counts(cases: Sequence[PreprocessedCase]) -> IntArray:
    """Voxels of each class over all cases."""
    return np.sum([case.counts for case in cases], axis=0)
