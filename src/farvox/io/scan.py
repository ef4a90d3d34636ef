"""A scan in memory: voxels, grid and the header it was read with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farvox.geometry import Grid
from farvox.types import Array


@dataclass(frozen=True)
class Scan:
    """An image as in its file.

    Args:
        image: (C, I, J, K) in the file's own intensities and, where nothing needs scaling, its own dtype.
        grid: Position of the voxels.
        path: The file, or the folder of a DICOM series.
        notes: What was assumed or is unusual about the file, one line each.
        header: What the format needs to write a mask that matches: a nibabel header, SimpleITK meta data, or None.
    """

    image: Array
    grid: Grid
    path: Path
    header: Any = None
    notes: tuple[str, ...] = ()
