"""What a scan, a labelled case and a dataset are while they travel through the program."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farvox.geometry import Grid
from farvox.labels import LabelTable
from farvox.types import Array


@dataclass(frozen=True)
class LandmarkSpheres:
    """Landmarks in place of a label file: when the label is read, each becomes a ball of its label value.

    Args:
        centres: (label value, landmark, (x, y, z) in mm, RAS+) of each landmark that the case has.
        landmark_radius_mm: Of every ball, mm.
        path: The file the landmarks come from.
    """

    centres: tuple[tuple[int, str, tuple[float, float, float]], ...]
    landmark_radius_mm: float
    path: Path


@dataclass(frozen=True)
class CasePaths:
    """Files of one case: one image with all channels or one image a channel, and a label, landmarks or None."""

    id: str
    images: tuple[Path, ...]
    label: Path | LandmarkSpheres | None = None


@dataclass(frozen=True)
class Dataset:
    """A folder of cases understood: who they are, what the channels and labels mean."""

    name: str
    root: Path
    cases: tuple[CasePaths, ...]
    channels: tuple[str, ...]
    labels: LabelTable
    licence: str = ""
    layout: str = ""
    """Which reader understood the folder: msd, nnunet, brats, promise12 or pattern."""
    notes: tuple[str, ...] = ()
    """What the reader passed over or decided, one line each."""
    unlabelled: tuple[CasePaths, ...] = ()
    landmark_radius_mm: float | None = None
    """Radius of the balls that landmarks become, mm; None where labels are files."""

    @property
    def cases_by_id(self) -> dict[str, CasePaths]:
        """Labelled cases by their id."""
        return {case.id: case for case in self.cases}


@dataclass(frozen=True)
class Case:
    """One case in memory: image (C, I, J, K), classes (I, J, K) uint8 with `labels.IGNORE`, or None, on one grid."""

    id: str
    image: Array
    classes: Array | None
    grid: Grid
    header: Any = field(default=None, compare=False)
