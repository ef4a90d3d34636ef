"""What a bundle says about its weights: network, preprocessing, labels, origin; enough to use them years later."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from farvox.labels import LabelTable
from farvox.preprocessing.config import Preprocessing

FORMAT_VERSION = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Part):
    """What `create_model` is called with."""

    name: str
    in_channels: int
    classes: int
    options: dict[str, Any] = {}


class LabelEntry(_Part):
    """A class: its value in files and its name."""

    value: int
    name: str


class Manifest(_Part):
    """`manifest.json` of a bundle."""

    format: Literal["farvox-bundle"] = "farvox-bundle"
    version: int = FORMAT_VERSION
    model: ModelEntry
    parameters: int
    preprocessing: Preprocessing
    window: tuple[int, int, int] | None
    """Voxels the network was trained on at once; None for whole scans."""
    labels: tuple[LabelEntry, ...]
    """Background first, in class order."""
    ignore: int | None = None
    dataset: str = ""
    licence: str = ""
    """Licence of the training scans; the weights derive from them."""
    fold: str = ""
    note: str = ""
    """What to know before use."""
    training: dict[str, Any] = {}
    """How long, how many steps, why it ended."""
    metrics: dict[str, Any] | None = None
    """Summary over the fold's validation scans, as in metrics.json; None when there were none."""
    versions: dict[str, str] = {}
    weights_sha256: str = ""

    @property
    def label_table(self) -> LabelTable:
        """The labels as a table."""
        return LabelTable(tuple(e.value for e in self.labels), tuple(e.name for e in self.labels), self.ignore)
