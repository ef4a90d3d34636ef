"""Every setting of a recipe with its type, range and default; unknown keys are errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from farvox.errors import RecipeError, suggest

Spacing = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Axis = Literal["left-right", "posterior-anterior", "inferior-superior"]


def parse_duration(text: str) -> float:
    """Convert "45s", "8m" or "1.5h" to seconds.

    Raises:
        RecipeError: Another text, or a time that is not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh])\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise RecipeError(f"budget '{text}'", allowed="a time above zero such as 45s, 8m or 1.5h")
    return seconds


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _RaisesRecipeError(ModelMetaclass):
    """Makes `Recipe(...)` and its sections raise `RecipeError` instead of `pydantic.ValidationError`."""

    if not TYPE_CHECKING:

        def __call__(cls, *args, **settings):
            try:
                return super().__call__(*args, **settings)
            except ValidationError as error:
                raise recipe_error(error, cls.__name__, section=cls) from None


class _Section(BaseModel, metaclass=_RaisesRecipeError):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridSettings(_Section):
    """The voxel grid that scans are resampled to. Its axes point right, anterior and superior."""

    spacing: Spacing | Literal["auto"] = "auto"
    """Voxel spacing, mm; auto: the median of the training scans, coarsened until `max_voxels` holds."""
    max_voxels: int = Field(500_000, ge=1_000)
    """For auto: a scan of median size has at most this many voxels after resampling."""


class IntensitySettings(_Section):
    """How intensities are normalised to about zero mean and unit variance."""

    normalization: Literal["auto", "percentile", "dataset", "zscore"] = "auto"
    """percentile: clip to the 0.5th and 99.5th percentile of each scan, then its mean and standard deviation (MR).
    dataset: the same values for all scans, from the labelled voxels of the training scans (CT, HU).
    zscore: mean and standard deviation of each scan, without clipping. auto: dataset for CT, else percentile."""


class ModelSettings(_Section):
    """Which network is trained, with which options."""

    name: str = "unet3d"
    options: dict[str, object] = {}
    """Options of the network's builder; strides and kernels of `unet3d` follow the spacing when they are left out."""


class PatchSettings(_Section):
    """The patches that a network is trained on."""

    size: Size | Literal["auto", "whole"] = "auto"
    """Voxels; auto: as much of the median scan as `max_voxels` allows; whole: whole scans, in batches of 1."""
    max_voxels: int = Field(200_000, ge=1_000)
    sampling: Literal["class-balanced", "uniform"] = "class-balanced"
    """class-balanced: near a voxel of each class, background included, equally often; uniform: anywhere in the scan."""
    normalize: bool = False
    """Normalise each patch, and each window in prediction, to zero mean and unit variance (Eschen 2018)."""
    blend: Literal["gaussian", "mean"] = "gaussian"
    """Weights of overlapping windows in prediction: gaussian: highest in the middle; mean: equal."""


class PointSettings(_Section):
    """Training on points sampled from several scans at once, instead of patches; for networks that predict points."""

    count: int = Field(0, ge=0)
    """Points per step and device, over all cases of the step; 0: train on patches."""
    cases_per_step: int = Field(16, ge=1)
    """Largest number of cases that the points of a step are sampled from."""
    sampling: Literal["uniform", "class-balanced", "mixed"] = "uniform"
    """uniform: anywhere in a scan; class-balanced: each class of a scan, background included, equally often; mixed:
    half of the points by either rule."""
    label_interpolation: Literal["linear", "nearest"] = "linear"
    """linear: the class with the largest trilinear weight at the point; nearest: the class of the nearest voxel."""
    steps_per_epoch: int = Field(64, ge=1)


class AugmentSettings(_Section):
    """Random augmentation of each patch, or of the offsets of each point. Zero switches a part off."""

    affine: float = Field(0.1, ge=0, le=0.5)
    """Standard deviation of the nine values added to the identity matrix, applied in mm (OBELISK, MIDL 2018: 0.2).
    With points, the offsets of each point are transformed, and nothing is resampled."""
    flip: tuple[Axis, ...] = ()
    """Axes flipped half of the time; left-right swaps labels whose names are a left/right pair."""
    contrast: float = Field(0.15, ge=0, le=1)
    """Standard deviation of the logarithm of a factor on the normalised intensities."""
    brightness: float = Field(0.15, ge=0, le=1)
    """Standard deviation of a shift of the normalised intensities."""
    gamma: float = Field(0.15, ge=0, le=1)
    """Standard deviation of the logarithm of the exponent, applied between the patch's lowest and highest value."""
    noise: float = Field(0.1, ge=0, le=1)
    """Largest standard deviation of added noise."""


class LossSettings(_Section):
    """The loss: a sum of terms."""

    terms: tuple[str, ...] = Field(("cross_entropy", "dice"), min_length=1)
    """Registered losses: cross_entropy, topk_cross_entropy, dice, those of `farvox.register_loss`, or
    "package.module:function"."""
    keep_fraction: float = Field(0.25, gt=0, le=1)
    """For topk_cross_entropy: fraction of voxels, those of the highest loss, that are averaged."""
    class_weights: bool = True
    """Weight cross-entropy by the inverse square root of each class's frequency (OBELISK, MedIA 2019, section 4)."""


class TrainSettings(_Section):
    """Optimiser, learning rate and duration."""

    budget: str = "8m"
    """Training time, such as 45s, 8m or 2h; the learning rate schedule spans it. Used when `epochs` is 0."""
    clock: Literal["wall", "cpu"] = "wall"
    """What the budget counts: wall: elapsed time; cpu: processor time of this process, summed over its cores, which
    makes trainings that run at the same time on one machine comparable."""
    epochs: int = Field(0, ge=0)
    """Passes over the training cases (with points: `points.steps_per_epoch` steps each); above 0, it replaces the
    budget and makes runs repeatable."""
    batch: int = Field(2, ge=1)
    learning_rate: float = Field(0.006, gt=0)
    optimiser: Literal["adamw", "adam"] = "adamw"
    """adamw: decoupled weight decay; adam: weight_decay · weight is added to the gradient (L2)."""
    weight_decay: float = Field(1e-4, ge=0)
    weight_decay_on: Literal["all", "convolutions"] = "all"
    """Parameters with weight decay: all, or only the kernels of convolutions."""
    schedule: Literal["cosine", "polynomial", "exponential", "halving", "inverse", "constant"] = "cosine"
    """Decay of the learning rate over the budget or the epochs; exponential: to 4.9 %, by 0.99 in each 300th part;
    halving: by half after each 20th part; inverse: divided by 1 + inverse_decay · steps so far (Keras' `decay`)."""
    inverse_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    """Fraction of the training over which the learning rate rises from zero."""
    gradient_clip_norm: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0: no limit."""
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 arithmetic with float32 weights if the processor multiplies bfloat16 in hardware, else float32."""
    checkpoint_seconds: float = Field(20.0, ge=0)
    """Seconds between checkpoints."""

    @field_validator("budget")
    @classmethod
    def _is_a_time(cls, budget: str) -> str:
        parse_duration(budget)
        return budget


class Recipe(_Section):
    """All settings of one training."""

    name: str = "default"
    description: str = ""
    source: str = ""
    """Paper and section that the recipe follows, if any."""
    grid: GridSettings = GridSettings()
    intensity: IntensitySettings = IntensitySettings()
    model: ModelSettings = ModelSettings()
    patch: PatchSettings = PatchSettings()
    points: PointSettings = PointSettings()
    augment: AugmentSettings = AugmentSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()


def recipe_error(error: ValidationError, source: str, text: str = "", section: type[BaseModel] = Recipe) -> RecipeError:
    """One line about the first error: unknown keys with the closest known key, values with what is expected.

    Args:
        error: What pydantic raised.
        source: Name of the recipe or file, or "settings".
        text: The TOML document, for the line number.
        section: The model that was validated.
    """
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(part for part in path if part in text or not text) or ".".join(path)
    location = source if (line := _line_of(text, path)) is None else f"{source}, line {line}"
    if first["type"] == "extra_forbidden":
        for part in path[:-1]:
            section = type(section.model_fields[part].default)
        where = f"in section [{'.'.join(path[:-1])}]" if path[:-1] else "at the top level"
        return RecipeError(
            f"{location}: unknown key '{path[-1]}' {where}", hint=suggest(path[-1], section.model_fields)
        )
    return RecipeError(f"{location}: {key} = {first['input']!r}", allowed=first["msg"].removeprefix("Input should be "))


def _line_of(text: str, path: Sequence[str]) -> int | None:
    for key in reversed(path):
        for number, line in enumerate(text.splitlines(), start=1):
            if re.match(rf"\s*(\[\s*)?\"?(\w+\.)*{re.escape(key)}\"?\s*(\]|=)", line):
                return number
    return None
