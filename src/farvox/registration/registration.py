"""`register`: two scans and a trained network in, a displacement field out; and what can be done with the field."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from farvox.bundle import Bundle
from farvox.devices import resolve_device
from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.ops.warp import warp
from farvox.registration.features import KINDS, FeatureKind, feature_extractor, feature_groups, normalise_features
from farvox.registration.field import Displacement
from farvox.registration.initial import (
    INITIAL_TRANSFORMS,
    InitialTransform,
    initial_from_centres,
    initial_from_headers,
    initial_from_search,
)
from farvox.registration.optimise import Level, refine
from farvox.types import Array, FloatArray

_SLAB_VOXELS = 1 << 20


@dataclass(frozen=True)
class RegisterOptions:
    """How to register.

    Args:
        features: "hidden": what enters the network's last layer, the paper's; "scores": class probabilities; "both".
        start: "header", "centres" or "search".
        iterations: Steps at each of the levels, 0 for the start alone.
        smoothness: Weight of the penalty on rough displacements, 0 or more.
        levels: Spacing of the features at each level, in multiples of the finest.
    """

    features: FeatureKind = "both"
    start: InitialTransform = "header"
    iterations: int = 40
    smoothness: float = 10.0
    levels: tuple[float, ...] = (4, 2, 1)

    def __post_init__(self) -> None:
        for name, value, known in (("features", self.features, KINDS), ("start", self.start, INITIAL_TRANSFORMS)):
            if value not in known:
                raise UsageError(f"{name} '{value}'", allowed=", ".join(known))
        if self.iterations < 0:
            raise UsageError(f"iterations {self.iterations}", allowed="0 or more")
        if not (np.isfinite(self.smoothness) and self.smoothness >= 0):
            raise UsageError(f"smoothness {self.smoothness:g}", allowed="0 or more")


@dataclass(frozen=True)
class Registration:
    """Where each voxel of the fixed scan is found in the moving one.

    Args:
        grid: Of the fixed scan.
        field: (3, I, J, K) float32: the place of voxel x in the moving scan's space is x + field, mm, RAS+.
        start: (3,) mm: the part of the field that was there before any deformation.
        distances: Mean feature distance before and after each level; features have unit spread.
        seconds: Time of each part.
    """

    grid: Grid
    field: FloatArray
    start: FloatArray
    distances: list[tuple[float, float]]
    seconds: dict[str, float]

    @property
    def deformation(self) -> FloatArray:
        """(3, I, J, K) mm, RAS+: the field without its start."""
        return self.field - self.start.astype(np.float32)[:, None, None, None]

    @property
    def initial_only(self) -> Registration:
        """The start alone."""
        still = np.broadcast_to(self.start.astype(np.float32)[:, None, None, None], self.field.shape)
        return Registration(self.grid, still, self.start, [], {})

    def warp(self, image: Array, grid: Grid) -> FloatArray:
        """Bring intensities onto the fixed grid, linearly.

        Args:
            image: (C, I, J, K).
            grid: Where they lie.

        Returns:
            (C, I, J, K) float32; each channel's smallest value where a voxel comes from outside the scan.
        """
        out = np.empty((len(image), *self.grid.shape), dtype=np.float32)
        for channel, to in zip(image, out, strict=True):
            maps = torch.from_numpy(np.array(channel, dtype=np.float32, order="C"))[None, None]
            fill = float(maps.min())
            for span, places in self._slabs():
                points = torch.from_numpy(grid.mm_to_unit(places)).float()[None]
                to[..., span] = warp(maps, points, fill=fill)[0, 0].reshape(to[..., span].shape).numpy()
        return out

    def warp_labels(self, values: Array, grid: Grid) -> Array:
        """Bring label values (I, J, K) onto the fixed grid, each from its nearest voxel; 0 from outside."""
        out = np.zeros(self.grid.shape, dtype=values.dtype)
        last = np.array(grid.shape) - 1
        for span, places in self._slabs():
            voxels = np.floor(grid.mm_to_voxel(places) + 0.5).astype(np.int64)
            inside = ((voxels >= 0) & (voxels <= last)).all(1)
            i, j, k = np.clip(voxels, 0, last).T
            out[..., span] = np.where(inside, values[i, j, k], 0).reshape(out[..., span].shape)
        return out

    def _slabs(self) -> Iterator[tuple[slice, FloatArray]]:
        """Slices along K, some at a time, and their places in the moving scan's space, (N, 3) mm."""
        shape = self.grid.shape
        thick = max(1, _SLAB_VOXELS // (shape[0] * shape[1]))
        for start in range(0, shape[2], thick):
            span = slice(start, min(start + thick, shape[2]))
            lines = np.arange(shape[0]), np.arange(shape[1]), np.arange(span.start, span.stop)
            voxels = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3)
            yield span, self.grid.voxel_to_mm(voxels) + self.field[..., span].reshape(3, -1).T


def register(
    fixed: Scan,
    moving: Scan,
    bundle: Bundle,
    options: RegisterOptions | None = None,
    *,
    device: str = "cpu",
    told: Callable[[float], None] | None = None,
) -> Registration:
    """Find where each voxel of the fixed scan lies in the moving one.

    Grids, spacing and orientation of the scans may differ; scans of a single slice are moved within it.

    Args:
        fixed: The scan that stays.
        moving: The scan that is brought onto it.
        bundle: A network trained to segment such scans; it is not changed.
        options: How; None for the defaults.
        device: Where the network runs, as in `resolve_device`; the optimisation is on the processor.
        told: Told the finished share, 0 to 1.

    Raises:
        DataError: The scans do not overlap, differ in dimension, or have channels other than the network's.
        ModelError: The network's last layer cannot be found.
        DeviceError: The device is not there.
    """
    options = options or RegisterOptions()
    told = told or (lambda share: None)
    require_same_dimension(fixed, moving)
    bundle.network.to(resolve_device(device)).eval()
    began = time.perf_counter()
    descriptions = [feature_extractor(bundle, scan, options.features) for scan in (fixed, moving)]
    places = [description.space.orient.target for description in descriptions]
    # Said before the network runs.
    start = initial_from_centres(*places) if options.start == "centres" else np.zeros(3)
    if options.start == "header":
        start = initial_from_headers(*places)
    displacement, distances = Displacement(places[0], start), []
    described = time.perf_counter()
    if options.iterations or options.start == "search":
        finest = max(description.finest_mm for description in descriptions)
        of_fixed = descriptions[0].features(finest)
        told(0.2)
        of_moving = descriptions[1].features(finest)
        told(0.4)
        groups = feature_groups(options.features, len(of_fixed.maps), bundle.manifest.model.classes)
        features = normalise_features(of_fixed, of_moving, groups)
        described = time.perf_counter()
        if options.start == "search":
            coarse = [side.at_spacing(max(options.levels) * finest) for side in features]
            displacement.start = initial_from_search(*coarse)
        for number, multiple in enumerate(options.levels if options.iterations else ()):
            level = Level(multiple * finest, 4 * multiple**0.5 * finest, options.iterations, options.smoothness)
            begin, share = 0.4 + 0.5 * number / len(options.levels), 0.5 / len(options.levels)
            distances.append(refine(displacement, *features, level, partial(_within, told, begin, share)))
    # float32 does for mm; the way from network order to the file's is whole-axis flips and swaps.
    field = np.ascontiguousarray(descriptions[0].space.orient.invert(displacement.on(places[0])))
    told(1.0)
    seconds = {"features": described - began, "optimisation": time.perf_counter() - described}
    return Registration(fixed.grid, field, displacement.start, distances, seconds)


def require_same_dimension(fixed: Scan, moving: Scan) -> None:
    """Raise where one scan is a single slice and the other is none."""
    flat = [min(scan.grid.shape) == 1 for scan in (fixed, moving)]
    if flat[0] != flat[1]:
        slices, volume = (fixed, moving) if flat[0] else (moving, fixed)
        raise DataError(
            f"{slices.path.name} is a single slice and {volume.path.name} a volume of "
            f"{'×'.join(map(str, volume.grid.shape))} voxels",
            allowed="two volumes or two slices",
            hint="take the slice out of the volume",
        )


def _within(told: Callable[[float], None], begin: float, share: float, done: float) -> None:
    told(begin + share * done)
