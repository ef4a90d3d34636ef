"""Reference positions of landmarks, from a table or from masks, and the distance of a landmark to its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farvox.errors import DataError
from farvox.evaluation.pairs import find_references
from farvox.geometry import Grid
from farvox.io import read_label
from farvox.io.landmarks import Point, read_landmarks
from farvox.labels import LabelTable

References = Mapping[str, Path | Mapping[str, Point] | None]
"""Case → its mask, its landmarks, or None without a reference."""


@dataclass(frozen=True)
class PointError:
    """The distance of a landmark to its reference; None where either of the two is absent.

    Args:
        reference: Reference position, mm; None if the structure is absent in the scan.
        mm: Distance in mm.
        voxels: Distance in voxels of the scan.
    """

    reference: Point | None
    mm: float | None
    voxels: float | None


def load_references(path: Path, cases: Sequence[str], labels: LabelTable) -> References:
    """Find the references of cases: rows of a CSV file, or masks with the names of the cases (a folder or one file).

    Raises:
        DataError: No such path, a table that cannot be read or contains none of the labels, or no case in common.
    """
    references: References
    if path.suffix.lower() in (".csv", ".fcsv", ".txt"):
        table = read_landmarks(path)
        names = [name for _, _, name in labels.foreground]
        if not set(names) & set(table.names):
            raise DataError(
                f"{path} contains none of the bundle's labels (it contains {', '.join(table.names[:6])})",
                allowed=", ".join(names),
                hint="rename the landmarks to the bundle's labels",
            )
        references = {case: table.points.get(case) for case in cases}
    else:
        references = find_references(cases, path)
    if not any(references.values()):
        raise DataError(
            f"{path} has no reference for any scan (scans: {', '.join(cases[:4])})",
            allowed="masks, or rows of a table, with the names of the scans",
        )
    return references


def reference_points(
    reference: Path | Mapping[str, Point] | None, labels: LabelTable, case: str
) -> Mapping[str, Point] | None:
    """Landmark or label name → point, mm; for a mask, the centroid of each of its labels.

    Raises:
        DataError: The mask cannot be read or contains values that are not in the label table.
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


def point_error(point: Point | None, reference: Point | None, grid: Grid) -> PointError:
    """The distance of a point to its reference, in mm and in voxels of a scan."""
    if point is None or reference is None:
        return PointError(reference, None, None)
    pair = np.array((point, reference))
    mm, voxels = (float(np.linalg.norm(np.diff(ends, axis=0))) for ends in (pair, grid.mm_to_voxel(pair)))
    return PointError(reference, mm, voxels)
