"""Every setting a recipe may hold, its type, range and default; an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from farvox.recipes.duration import parse_duration

Spacing = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
LossTerm = Literal["cross_entropy", "hard_cross_entropy_half", "hard_cross_entropy_quarter", "dice"]
Axis = Literal["left-right", "posterior-anterior", "inferior-superior"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridSettings(_Section):
    """Network space. Axes are always right, anterior, superior."""

    spacing: Spacing | Literal["auto"] = "auto"
    """Voxel spacing, mm; auto takes the median of the training scans, coarsened until `max_voxels` holds."""
    max_voxels: int = Field(500_000, ge=1_000)
    """For auto: a scan of median size has at most this many voxels in network space."""


class IntensitySettings(_Section):
    """How intensities are brought to about zero mean and unit spread."""

    kind: Literal["auto", "per-scan", "fixed", "z-score"] = "auto"
    """per-scan: percentiles, mean and spread of each scan (MR). fixed: those of the training labels (CT, HU).
    z-score: mean and spread of each scan, nothing clipped."""


class ModelSettings(_Section):
    """Which network of the registry, with which options."""

    name: str = "unet3d"
    options: dict[str, Any] = {}
    """Handed to the network's builder; for `unet3d`, strides and kernels follow the spacing when left out."""


class PatchSettings(_Section):
    """What the network sees at once."""

    size: Size | Literal["auto", "whole"] = "auto"
    """Voxels; auto fits the median scan within `max_voxels`; whole takes each scan as it is (batch of 1)."""
    max_voxels: int = Field(200_000, ge=1_000)
    centre: Literal["classes", "uniform"] = "classes"
    """classes: each class, background included, is as often at the centre; uniform: anywhere in the scan."""
    z_score: bool = False
    """Bring each patch, and each window in prediction, to zero mean and unit spread by itself (Eschen 2018)."""
    blend: Literal["gaussian", "mean"] = "gaussian"
    """Weights of overlapping windows in prediction: highest in the middle, or the same everywhere."""


class PointSettings(_Section):
    """Learning from points drawn from several scans at once, in place of patches; for networks that answer points."""

    count: int = Field(0, ge=0)
    """Points a step and device, over all its scans; 0 learns from patches."""
    scans: int = Field(16, ge=1)
    """Most scans that share the points of a step."""
    draw: Literal["uniform", "classes", "mixed"] = "uniform"
    """uniform: anywhere in a scan; classes: in each class of a scan, background included, equally often; mixed: half
    of the points by either rule."""
    label: Literal["linear", "nearest"] = "linear"
    """linear: the class with most trilinear weight at the point; nearest: that of the nearest voxel."""
    steps: int = Field(64, ge=1)
    """Steps an epoch."""


class AugmentSettings(_Section):
    """Random change of each patch, or of the surroundings of each point. Zero switches a part off."""

    affine: float = Field(0.1, ge=0, le=0.5)
    """Spread of the nine entries added to the identity matrix, applied in mm (OBELISK, MIDL 2018: 0.2).
    With points it turns the offsets of each on its own, and nothing is resampled."""
    flip: tuple[Axis, ...] = ()
    """Axes flipped half of the time; left-right swaps labels whose names are a left/right pair."""
    contrast: float = Field(0.15, ge=0, le=1)
    """Spread of the logarithm of a factor on the normalised intensities."""
    brightness: float = Field(0.15, ge=0, le=1)
    """Spread of a shift, in units of the normalised intensities."""
    gamma: float = Field(0.15, ge=0, le=1)
    """Spread of the logarithm of the exponent applied between the patch's darkest and brightest value."""
    noise: float = Field(0.1, ge=0, le=1)
    """Largest standard deviation of added noise."""


class LossSettings(_Section):
    """A sum of terms."""

    terms: tuple[LossTerm, ...] = Field(("cross_entropy", "dice"), min_length=1)
    class_weights: bool = True
    """Weight cross-entropy by the inverse square root of each class's frequency (OBELISK, MedIA 2019, section 4)."""


class TrainSettings(_Section):
    """Optimisation and its length."""

    budget: str = "8m"
    """Time to train, such as 45s, 8m or 2h; the learning rate follows it. Used where `epochs` is 0."""
    clock: Literal["wall", "processor"] = "wall"
    """How the budget is counted. processor: seconds that cores worked for this process, summed over them, so that
    trainings beside each other on one machine can be compared."""
    epochs: int = Field(0, ge=0)
    """Passes over the training cases (with points: `points.steps` steps each); when above 0 it takes the place of the
    budget and makes runs repeatable."""
    batch: int = Field(2, ge=1)
    learning_rate: float = Field(0.006, gt=0)
    optimiser: Literal["adamw", "adam"] = "adamw"
    """adamw shrinks weights beside the gradient step; adam adds weight_decay · weight to the gradient (L2)."""
    weight_decay: float = Field(1e-4, ge=0)
    decayed: Literal["all", "convolutions"] = "all"
    """Which values decay: all, or the kernels of convolutions alone."""
    schedule: Literal["cosine", "polynomial", "exponential", "halving", "inverse", "constant"] = "cosine"
    """Fall of the learning rate over the budget or the epochs; exponential: to 4.9 %, by 0.99 in each 300th part;
    halving: by half after each 20th part; inverse: divided by 1 + inverse_decay · steps so far (Keras' `decay`)."""
    inverse_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the training over which the learning rate rises from zero."""
    clip_gradient: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 for no limit."""
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 arithmetic with float32 weights where the processor multiplies it in hardware, else float32."""
    checkpoint_seconds: float = Field(20.0, ge=0)
    """Time between checkpoints; what a kill can cost."""

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
    """Paper and section, where the recipe follows one."""
    grid: GridSettings = GridSettings()
    intensity: IntensitySettings = IntensitySettings()
    model: ModelSettings = ModelSettings()
    patch: PatchSettings = PatchSettings()
    points: PointSettings = PointSettings()
    augment: AugmentSettings = AugmentSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
