"""Batches of a training step: patches, or points of several cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from farvox.errors import UsageError
from farvox.labels import LabelTable
from farvox.models import PointNetwork
from farvox.preprocessing.cases import PreprocessedCase
from farvox.preprocessing.config import Preprocessing
from farvox.preprocessing.preprocess import zscore_normalise
from farvox.recipes import Recipe
from farvox.sampling.augment import augment_intensities, flip, random_matrices
from farvox.sampling.patches import choose_centre, sample_patch_from
from farvox.sampling.points import (
    label_at_points,
    random_offset_transforms,
    sample_points,
    swap_left_right,
    to_normalised,
)
from farvox.types import FloatArray, Shape

Outputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Rank:
    """Which of the processes that train together this one is."""

    rank: int
    world: int
    device: torch.device


class BatchSampler(Protocol):
    """A way to fill training steps; the same step and seed give the same batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps that make an epoch."""

    def batch(self, step: int, rng: np.random.Generator) -> Any:
        """What a step learns from; its `target` (B, …) holds classes."""

    def forward(self, network: Any, batch: Any) -> Outputs:
        """The network's logits (B, classes, …) for a batch, one or several."""


@dataclass(frozen=True)
class PatchBatch:
    """Images (B, C, *size) and classes (B, *size)."""

    image: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class PatchSampler:
    """Patches drawn from case after case, changed at random."""

    recipe: Recipe
    preprocessing: Preprocessing
    labels: LabelTable
    cases: Sequence[PreprocessedCase]
    rank: Rank
    augment: Callable[..., Any] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every training case is used once, over all devices."""
        return max(1, math.ceil(len(self.cases) / (self.recipe.train.batch * self.rank.world)))

    def batch(self, step: int, rng: np.random.Generator) -> PatchBatch:
        """Patches of the next cases."""
        settings, change = self.recipe.train, self.recipe.augment
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(self.cases))
        images, targets = [], []
        for member in range(settings.batch):
            position = (within * self.rank.world + self.rank.rank) * settings.batch + member
            case = self.cases[order[position % len(self.cases)]]
            shape = patch_size(self.recipe, case)
            centre = choose_centre(case, shape, self.recipe.patch.sampling, rng)
            matrix = random_matrices(1, change.affine, self.preprocessing.spacing or (1.0, 1.0, 1.0), rng)[0]
            image, target = sample_patch_from(case, centre, matrix, shape, self.rank.device)
            image = zscore_normalise(image) if self.recipe.patch.normalize else image
            image, target = flip(image, target, change.flip, self.labels, rng)
            image = augment_intensities(image, change.contrast, change.brightness, change.gamma, change.noise, rng)
            if self.augment:
                image, target = self._augmented(image, target, rng)
            images.append(image)
            targets.append(target)
        return PatchBatch(torch.stack(images), torch.stack(targets))

    def _augmented(
        self, image: torch.Tensor, target: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch as the user's own augmentation returns it."""
        assert self.augment is not None
        changed = self.augment(image, target, rng)
        shapes = (
            [tuple(part.shape) for part in changed] if isinstance(changed, tuple) and len(changed) == 2 else changed
        )
        if shapes != [tuple(image.shape), tuple(target.shape)]:
            raise UsageError(
                f"augment returned {shapes if isinstance(shapes, list) else type(changed).__name__}",
                allowed=f"(image, classes) of shapes {tuple(image.shape)} and {tuple(target.shape)}",
            )
        return changed[0], changed[1]

    def forward(self, network: Any, batch: PatchBatch) -> Outputs:
        """Logits (B, classes, *size), from each of the network's heads."""
        logits = network(batch.image)
        return logits if isinstance(logits, tuple) else (logits,)


@dataclass(frozen=True)
class PointBatch:
    """One entry a case: prepared image (1, C, I, J, K), points (1, S, 3), matrices (1, S, 3, 3); classes (1, all S)."""

    images: list[torch.Tensor]
    points: list[torch.Tensor]
    matrices: list[torch.Tensor] | None
    target: torch.Tensor


class PointSampler:
    """Points drawn from several cases at once, the offsets of each transformed at random.

    Heinrich, Oktay and Bouteldja, "OBELISK", MIDL 2018, section 2.1.

    Args:
        recipe: Resolved.
        preprocessing: How scans came into network space.
        labels: The label table.
        cases: Prepared training cases.
        rank: Which process this is.
        network: Says what is done once for each image.
        store: Folder for those images; they stay there, memory-mapped, unless the device is a GPU, which holds them.
    """

    def __init__(
        self,
        recipe: Recipe,
        preprocessing: Preprocessing,
        labels: LabelTable,
        cases: Sequence[PreprocessedCase],
        rank: Rank,
        network: PointNetwork,
        store: Path,
    ) -> None:
        self._recipe, self._labels, self._cases, self._rank = recipe, labels, cases, rank
        self._spacing = np.array(preprocessing.spacing or (1.0, 1.0, 1.0))
        self._images = [_prepared(network, case, rank, store) for case in cases]

    @property
    def steps_per_epoch(self) -> int:
        """The number that the recipe sets."""
        return self._recipe.points.steps_per_epoch

    def forward(self, network: Any, batch: PointBatch) -> Outputs:
        """Logits (1, classes, S)."""
        return (network.forward_points_batch(batch.images, batch.points, batch.matrices),)

    def batch(self, step: int, rng: np.random.Generator) -> PointBatch:
        """Points of some cases, evenly shared out."""
        settings, change = self._recipe.points, self._recipe.augment
        case_indices = rng.permutation(len(self._cases))[: min(settings.cases_per_step, settings.count)]
        images, points, matrices, targets = [], [], [], []
        for part, index in enumerate(case_indices):
            count = (settings.count * (part + 1)) // len(case_indices) - (settings.count * part) // len(case_indices)
            case = self._cases[index]
            positions = sample_points(case, count, settings.sampling, rng)
            extent = np.array(case.shape) * self._spacing
            transforms, mirrored = random_offset_transforms(count, change.affine, change.flip, extent, rng)
            images.append(self._images[index])
            points.append(self._tensor(to_normalised(positions, case.shape)))
            matrices.append(self._tensor(transforms))
            targets.append(
                swap_left_right(
                    label_at_points(case.classes, positions, settings.label_interpolation), mirrored, self._labels
                )
            )
        target = torch.from_numpy(np.concatenate(targets))[None].to(self._rank.device)
        changed = change.affine > 0 or bool(change.flip)
        return PointBatch(images, points, matrices if changed else None, target)

    def _tensor(self, array: FloatArray) -> torch.Tensor:
        return torch.from_numpy(array[None].astype(np.float32)).to(self._rank.device)


def patch_size(recipe: Recipe, case: PreprocessedCase) -> Shape:
    """Size of the network's input for a case, voxels."""
    size = recipe.patch.size
    return case.shape if isinstance(size, str) else size


def _prepared(network: PointNetwork, case: PreprocessedCase, rank: Rank, store: Path) -> torch.Tensor:
    with torch.no_grad():
        image = network.prepare(torch.from_numpy(np.array(case.image))[None].to(rank.device))
    if rank.device.type != "cpu":
        return image
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"{case.id}.points-{rank.rank}.npy"
    np.save(path, image.numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # never written to; torch takes no read-only arrays
