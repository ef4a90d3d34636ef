"""Where landmarks are known to lie, from a table or from masks, and how far off an answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from farvox.errors import DataError
from farvox.evaluation.pairs import find_references
from farvox.geometry import Grid
from farvox.io import read_label
from farvox.io.landmarks import Point, read_landmarks
from farvox.labels import LabelTable

References = Mapping[str, Path | Mapping[str, Point] | None]
"""Case → its mask, its landmarks, or None where nothing is known."""


def load_references(path: Path, cases: Sequence[str], labels: LabelTable) -> References:
    """References of cases: rows of a CSV file, or masks of the cases' names (a folder or one file), not yet read.

    Raises:
        DataError: Nothing there, a table that cannot be read or names none of the labels, or no case in common.
    """
    found: References
    if path.suffix.lower() in (".csv", ".fcsv", ".txt"):
        table = read_landmarks(path)
        known = [name for _, _, name in labels.foreground]
        if not set(known) & set(table.names):
            raise DataError(
                f"{path} names none of the bundle's labels (it has {', '.join(table.names[:6])})",
                allowed=", ".join(known),
                hint="give the landmarks the bundle's names",
            )
        found = {case: table.points.get(case) for case in cases}
    else:
        found = find_references(cases, path)
    if not any(found.values()):
        raise DataError(
            f"{path} has no reference of any scan (scans: {', '.join(cases[:4])})",
            allowed="masks, or rows of a table, that go by the scans' names",
        )
    return found


def reference_points(
    reference: Path | Mapping[str, Point] | None, labels: LabelTable, case: str
) -> Mapping[str, Point] | None:
    """Landmark or label name → point, mm; of a mask, the centroid of each label it holds.

    Raises:
        DataError: The mask cannot be read or holds values beyond the label table.
    """
    if not isinstance(reference, Path):
        return reference
    values, grid = read_label(reference, case=case)
    classes = labels.to_classes(values, case)
    points: dict[str, Point] = {}
    for index, _, name in labels.foreground:
        voxels = np.argwhere(classes == index)
        if len(voxels):
            x, y, z = grid.voxel_to_mm(voxels.mean(0)[None])[0].tolist()
            points[name] = (x, y, z)
    return points


def distance(a: Point, b: Point, grid: Grid) -> tuple[float, float]:
    """Distance of two points in mm and in voxels of a scan."""
    places = np.array((a, b))
    voxels = grid.mm_to_voxel(places)
    return float(np.linalg.norm(places[0] - places[1])), float(np.linalg.norm(voxels[0] - voxels[1]))
