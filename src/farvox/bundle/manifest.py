"""`manifest.json` of a bundle: network, preprocessing, inference, labels and origin of the weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from farvox.labels import LabelTable
from farvox.preprocessing.config import Preprocessing
from farvox.recipes import Recipe

FORMAT_VERSION = 3


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Part):
    """Arguments of `create_model`."""

    name: str
    in_channels: int
    classes: int
    options: dict[str, object] = {}


class Inference(_Part):
    """How the network is applied to a preprocessed scan.

    Attributes:
        patch_size: Voxels of a training patch, and of a window in prediction; None for whole scans.
        overlap: Smallest fraction that neighbouring windows have in common.
        blend: Weights of overlapping windows: highest in the middle, or equal.
        patch_normalization: Whether each window is normalised to zero mean and unit variance.
        precision: Number format of the network's arithmetic; auto: bfloat16 on a GPU that has it.
    """

    patch_size: tuple[int, int, int] | None = None
    overlap: float = Field(0.5, ge=0, lt=1)
    blend: Literal["gaussian", "mean"] = "gaussian"
    patch_normalization: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Inference:
        """The values of a resolved recipe."""
        size, patch = recipe.patch.size, recipe.patch
        return cls(
            patch_size=None if isinstance(size, str) else size,
            blend=patch.blend,
            patch_normalization=patch.normalize,
            precision=recipe.train.precision,
        )


class LabelEntry(_Part):
    """A class: its value in label files and its name."""

    value: int
    name: str


class Manifest(_Part):
    """Content of `manifest.json`.

    Attributes:
        model: The network.
        parameters: Number of trainable values.
        preprocessing: How scans are preprocessed.
        inference: How the network is applied to them.
        labels: Background first, in class order.
        ignore: Label value of voxels that are not annotated.
        dataset: Name of the training data.
        licence: Licence of the training scans; the weights derive from them.
        fold: Name of the fold.
        note: What to know before use.
        training: Duration, number of steps and `stop_reason`.
        metrics: Summary over the fold's validation scans, as in `metrics.json`; None without validation scans.
        versions: Library → version.
        weights_sha256: Digest of the weights file.
    """

    format: Literal["farvox-bundle"] = "farvox-bundle"
    version: int = Field(FORMAT_VERSION, ge=1)
    model: ModelEntry
    parameters: int
    preprocessing: Preprocessing
    inference: Inference = Inference()
    labels: tuple[LabelEntry, ...]
    ignore: int | None = None
    dataset: str = ""
    licence: str = ""
    fold: str = ""
    note: str = ""
    training: dict[str, object] = {}
    metrics: dict[str, object] | None = None
    versions: dict[str, str] = {}
    weights_sha256: str = ""

    @property
    def label_table(self) -> LabelTable:
        """The labels as a table."""
        return LabelTable(tuple(e.value for e in self.labels), tuple(e.name for e in self.labels), self.ignore)


def upgrade_manifest(content: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Convert the content of a manifest of version 1 or 2 to the present version.

    Args:
        content: The parsed JSON document; it is not changed.
        recipe: The bundle's recipe, which had the values of `inference` before version 3.
    """
    if content.get("version") not in (1, 2):
        return content
    renamed = {"preparation": "preprocessing", "made_with": "versions"}
    new = {renamed.get(key, key): value for key, value in content.items() if key != "window"}
    new["version"] = FORMAT_VERSION
    inference = Inference.from_recipe(recipe).model_dump()
    new["inference"] = inference | {"patch_size": content.get("window")}
    for section, old_key, new_key in (
        ("preprocessing", "pooled", "antialias_pooling"),
        ("training", "reason", "stop_reason"),
    ):
        values = new.get(section)
        if isinstance(values, dict):
            new[section] = {new_key if key == old_key else key: value for key, value in values.items()}
    return new
