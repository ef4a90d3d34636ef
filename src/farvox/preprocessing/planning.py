"""Planning: spacing, normalisation, patch size and strides from the training scans, in place of every `auto`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farvox.data.dataset import LoadedCase
from farvox.errors import RecipeError
from farvox.geometry import Orient
from farvox.labels import IGNORE
from farvox.models import PointNetwork, create_on_meta, list_models, model_info, plan_options
from farvox.preprocessing.config import IntensityNormalization, Preprocessing, fit_fixed_normalization, subsample_voxels
from farvox.recipes import Recipe, with_settings
from farvox.types import Array, FloatArray

_AIR_HU = -500.0
_SAMPLE_VOXELS = 20_000


@dataclass(frozen=True)
class Fingerprint:
    """What the plan needs to know of one training case, in canonical orientation.

    Args:
        extent: Size along right, anterior, superior, mm.
        spacing: Voxel spacing, same axes, mm.
        low_percentile: 0.5th percentile of each channel.
        foreground_values: Sample of each channel's intensities inside the labelled structures, (C, N).
    """

    extent: FloatArray
    spacing: FloatArray
    low_percentile: FloatArray
    foreground_values: Array


def fingerprint(case: LoadedCase) -> Fingerprint:
    """The fingerprint of one labelled case."""
    grid = Orient.to_canonical(case.grid).target
    assert case.classes is not None
    labelled = np.flatnonzero((case.classes > 0) & (case.classes != IGNORE))
    sample = labelled[:: max(1, labelled.size // _SAMPLE_VOXELS)]
    flat = case.image.reshape(case.image.shape[0], -1)
    return Fingerprint(
        extent=np.array(grid.shape) * grid.spacing,
        spacing=grid.spacing,
        low_percentile=np.array([np.percentile(subsample_voxels(channel, 100_000), 0.5) for channel in case.image]),
        foreground_values=flat[:, sample].astype(np.float64),
    )


def validate_recipe(recipe: Recipe) -> None:
    """Refuse settings that contradict each other.

    Raises:
        RecipeError: Points for a network that takes whole volumes only, or augmentation that needs patches.
    """
    if not recipe.points.count:
        return
    name, change = recipe.model.name, recipe.augment
    if not isinstance(create_on_meta(name, recipe.model.options), PointNetwork):
        able = ", ".join(model for model in list_models() if model_info(model).points)
        raise RecipeError(
            f"points.count = {recipe.points.count} for '{name}', which is not a point network",
            allowed=able,
            hint="take points.count=0 or another network",
        )
    if recipe.points.count < 2:
        raise RecipeError("points.count = 1", allowed="0, or 2 and more: batch norm needs several")
    for key in ("contrast", "brightness", "gamma", "noise"):
        if getattr(change, key):
            raise RecipeError(
                f"augment.{key} = {getattr(change, key):g} with points",
                allowed="0: offsets of points are transformed and mirrored, intensities stay",
            )
    if recipe.patch.normalize:
        raise RecipeError("patch.normalize with points", allowed="false, or points.count=0")


def resolve(recipe: Recipe, prints: Sequence[Fingerprint], channels: Sequence[str]) -> tuple[Recipe, Preprocessing]:
    """Replace every `auto` by what suits these training cases.

    Returns:
        The recipe with values in place of `auto`, and the preprocessing that goes with it.

    Raises:
        RecipeError: As `validate_recipe`.
    """
    validate_recipe(recipe)
    spacing = _spacing(recipe, prints)
    kind = recipe.intensity.normalization
    steps = []
    for index, name in enumerate(channels):
        fixed = kind == "dataset" or (kind == "auto" and _is_ct(name, [p.low_percentile[index] for p in prints]))
        values = np.concatenate([p.foreground_values[index] for p in prints])
        own = IntensityNormalization(kind="zscore" if kind == "zscore" else "percentile")
        steps.append(fit_fixed_normalization(values) if fixed else own)
    options: dict[str, Any] = plan_options(recipe.model.name, recipe.model.options, spacing.tolist())
    size = recipe.patch.size
    if size == "auto":
        multiple = np.prod(np.reshape(options["strides"], (-1, 3)), axis=0) if "strides" in options else np.full(3, 8)
        median = np.median([p.extent for p in prints], axis=0)
        size = _patch(median, spacing, multiple, recipe.patch.max_voxels)
    kinds = {step.kind for step in steps}
    resolved = with_settings(
        recipe,
        {
            "grid.spacing": tuple(round(float(s), 6) for s in spacing),
            "intensity.normalization": kinds.pop() if len(kinds) == 1 else "auto",
            "model.options": options,
            "patch.size": size,
            "train.batch": 1 if size == "whole" else recipe.train.batch,
        },
    )
    i, j, k = (round(float(s), 6) for s in spacing)
    return resolved, Preprocessing(spacing=(i, j, k), channels=tuple(channels), intensity=tuple(steps))


def _spacing(recipe: Recipe, prints: Sequence[Fingerprint]) -> FloatArray:
    if recipe.grid.spacing != "auto":
        return np.array(recipe.grid.spacing)
    spacing = np.median([p.spacing for p in prints], axis=0)
    extent = np.median([p.extent for p in prints], axis=0)
    limit = recipe.grid.max_voxels
    if np.prod(extent / spacing) <= 1.25 * limit:
        return spacing
    # The finest axes give way first, so that an anisotropic scan becomes less so before anything else is lost.
    low, high = float(spacing.min()), float(extent.max())
    for _ in range(60):
        middle = (low * high) ** 0.5
        fits = np.prod(extent / np.maximum(spacing, middle)) <= limit
        low, high = (low, middle) if fits else (middle, high)
    return np.maximum(spacing, high)


def _is_ct(channel: str, low_percentile: Sequence[float]) -> bool:
    words = channel.lower().replace("-", " ").replace("_", " ").split()
    if "ct" in words or "hu" in words:
        return True
    return words in ([], ["image"]) and float(np.median(low_percentile)) < _AIR_HU


def _patch(extent: FloatArray, spacing: FloatArray, multiple: Array, max_voxels: int) -> tuple[int, int, int]:
    """The median scan's size rounded up to the network's multiple, its longest axes (mm) cut until it fits."""
    size = np.maximum(np.ceil(np.round(extent / spacing) / multiple), 1).astype(int) * multiple
    while np.prod(size) > max_voxels and (size > multiple).any():
        axis = int(np.argmax(np.where(size > multiple, size * spacing, 0)))
        size[axis] -= multiple[axis]
    i, j, k = (int(n) for n in size)
    return i, j, k
