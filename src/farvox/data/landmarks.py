"""Landmarks as a table of points in mm: read, written, and put in place of a dataset's labels."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from farvox.data.case import Balls, CaseFiles, Dataset
from farvox.data.io import read_grid, scan_stem
from farvox.errors import DataError, FarvoxError, UsageError, nearest
from farvox.files import write_text
from farvox.geometry import Grid
from farvox.labels import LabelTable

Point = tuple[float, float, float]
"""Scanner coordinates in mm, RAS+ as in NIfTI: x grows to the patient's right, y to the front, z to the head."""

COLUMNS = ("case", "landmark", "x", "y", "z")
"""Columns a file of landmarks must have; others are passed over."""

_COLUMNS = ",".join(COLUMNS)
_LEAST_VOXELS = 1.5
_SHARE_OF_EXTENT = 0.02


@dataclass(frozen=True)
class Landmarks:
    """What a file of landmarks holds.

    Args:
        path: The file.
        names: Every landmark once, in the order of first appearance.
        points: Case id → landmark → point; a landmark without coordinates is not in its case.
    """

    path: Path
    names: tuple[str, ...]
    points: Mapping[str, Mapping[str, Point]]


@dataclass(frozen=True)
class LandmarkRow:
    """A row to be written: a landmark of a case, its point or None for "not found", and further columns by name."""

    case: str
    landmark: str
    point: Point | None
    facts: Mapping[str, str | float | int] = field(default_factory=dict)


def read_landmarks(path: Path) -> Landmarks:
    """Read a CSV file with the columns case, landmark, x, y, z (mm, RAS+), one row a landmark.

    A case is named by its id or by its scan's file name. A row whose three coordinates are empty says that the
    landmark is not there; what `write_landmarks` wrote can be read again.

    Raises:
        DataError: No such file, another kind of file, missing columns, cells that are no numbers, or a landmark twice.
    """
    lines = _lines(Path(path))
    header = [cell.strip().lower() for cell in next(csv.reader([lines[0]]))]
    _require_columns(header, path)
    points: dict[str, dict[str, Point]] = {}
    seen: dict[tuple[str, str], int] = {}
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise DataError(
                f"line {number} of {path} has {len(cells)} cells", allowed=f"{len(header)}, as its first line"
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
        case, name = scan_stem(Path(row["case"])), row["landmark"]
        if not case or not name:
            raise DataError(f"line {number} of {path} names no {'case' if not case else 'landmark'}")
        if first := seen.get((case, name)):
            raise DataError(
                f"landmark '{name}' stands in lines {first} and {number} of {path}",
                allowed="each landmark once a case",
                remedy="remove one, or give two structures two names",
                case=case,
            )
        seen[case, name] = number
        point = _point(row, number, path)
        places = points.setdefault(case, {})
        if point is not None:
            places[name] = point
    if not any(points.values()):
        raise DataError(f"{path} holds no landmark", allowed=f"one row a landmark below '{_COLUMNS}'")
    return Landmarks(Path(path), tuple(dict.fromkeys(name for _, name in seen)), points)


def write_landmarks(path: Path, rows: Sequence[LandmarkRow]) -> None:
    """Write a table that `read_landmarks` reads; coordinates to a ten-thousandth of a mm, empty where not found.

    Raises:
        ResourceError: The disk is full or the folder not writable.
    """
    extra = list(dict.fromkeys(name for row in rows for name in row.facts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *extra])
    for row in rows:
        cells = ["", "", ""] if row.point is None else [f"{value:.4f}" for value in row.point]
        writer.writerow([row.case, row.landmark, *cells, *(row.facts.get(name, "") for name in extra)])
    write_text(Path(path), text.getvalue())


def with_landmarks(dataset: Dataset, landmarks: Landmarks, radius_mm: float | None = None) -> Dataset:
    """The same scans with landmarks in place of labels: label n is a ball around the n-th landmark.

    A case without any of the landmarks becomes one without label. A case that lacks some is taken as one where they
    are not to be seen.

    Args:
        dataset: Whose scans are meant; its labels play no part.
        landmarks: As from `read_landmarks`.
        radius_mm: Of the balls; None takes a fiftieth of the scans' size (geometric mean of the three extents) and at
            least 1.5 of their coarsest voxel spacing, each the median over the scans.

    Raises:
        DataError: A case that no scan goes by.
        UsageError: A radius that is not above 0.
    """
    if radius_mm is not None and not (math.isfinite(radius_mm) and radius_mm > 0):
        raise UsageError(f"a radius of {radius_mm:g} mm", allowed="above 0 mm")
    scans = {case.id: case for case in (*dataset.cases, *dataset.unlabelled) if case.images}
    unknown = sorted(set(landmarks.points) - set(scans))
    if unknown:
        others = f" and of {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{landmarks.path.name} holds landmarks of '{unknown[0]}'{others}, which no scan goes by",
            allowed="ids of the dataset's cases (for a pattern, what its * stand for) or names of their files",
            remedy=_nearest_case(unknown[0], list(scans)),
        )
    values = {name: value for value, name in enumerate(landmarks.names, start=1)}
    marked = [scans[id] for id in sorted(scans) if landmarks.points.get(id)]
    radius, notes = _radius(marked, radius_mm)
    cases = []
    for case in marked:
        centres = tuple((values[name], name, point) for name, point in landmarks.points[case.id].items())
        cases.append(CaseFiles(case.id, case.images, Balls(centres, radius, landmarks.path)))
    bare = tuple(CaseFiles(id, scans[id].images) for id in sorted(scans) if not landmarks.points.get(id))
    return replace(
        dataset,
        cases=tuple(cases),
        unlabelled=bare,
        labels=LabelTable.from_mapping({value: name for name, value in values.items()}),
        notes=(f"labels are balls of {radius:g} mm around the landmarks of {landmarks.path}", *notes),
        radius_mm=radius,
    )


def default_radius_mm(grids: Iterable[Grid]) -> float:
    """Radius of balls that suits scans on these grids, mm, to two figures; see `with_landmarks`."""
    found = list(grids)
    extents = [np.prod(np.array(grid.shape) * grid.spacing) ** (1 / 3) for grid in found]
    coarsest = [grid.spacing.max() for grid in found]
    radius = max(_SHARE_OF_EXTENT * float(np.median(extents)), _LEAST_VOXELS * float(np.median(coarsest)))
    return float(f"{radius:.2g}")


def _radius(cases: Sequence[CaseFiles], wanted: float | None) -> tuple[float, list[str]]:
    """The radius, and a note where it is small for the scans' voxels; scans that cannot be read are judged later."""
    grids = []
    for case in cases:
        with suppress(FarvoxError):
            grids.append(read_grid(case.images[0], case=case.id))
    if not grids:
        raise DataError("none of the scans with landmarks can be read", remedy="check the scans")
    if wanted is None:
        return default_radius_mm(grids), []
    coarsest = float(np.median([grid.spacing.max() for grid in grids]))
    if wanted >= _LEAST_VOXELS * coarsest:
        return wanted, []
    return wanted, [f"a radius of {wanted:g} mm is below 1.5 voxels ({coarsest:g} mm apart): balls of very few voxels"]


def _nearest_case(name: str, known: Sequence[str]) -> str:
    """The closest id, or the first few; a dataset may hold thousands."""
    phrase = nearest(name, known)
    return phrase if phrase.startswith("did") or len(known) <= 6 else f"known: {', '.join(known[:6])}, …"


def _lines(path: Path) -> list[str]:
    """Lines of a text file that looks like comma-separated values."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file", allowed=f"a CSV file (UTF-8) with the columns {_COLUMNS}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", remedy="check the path") from None
    lines = text.splitlines()
    if not lines:
        raise DataError(f"{path} is empty", allowed=f"a CSV file with the columns {_COLUMNS}")
    if path.suffix.lower() == ".fcsv" or "markups" in lines[0].lower():
        raise DataError(
            f"{path} is a list of markups as 3D Slicer writes it",
            allowed=f"a CSV file with the columns {_COLUMNS}",
            remedy=f"make it a table '{_COLUMNS}'; where CoordinateSystem is LPS (or 1), change the signs of x and y",
        )
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if lines[0].count(mark) >= len(COLUMNS) - 1 > lines[0].count(","):
            raise DataError(
                f"{path} separates its columns by {name}",
                allowed="commas, and points in decimal numbers",
                remedy="export the table again as comma-separated values",
            )
    return lines


def _require_columns(header: Sequence[str], path: Path) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        hints = [f"for {name}: {nearest(name, header)}" for name in missing if name not in "xyz"]
        hints += [f"coordinates are columns x, y and z in mm (found: {', '.join(header)})"] if "x" in missing else []
        raise DataError(
            f"{path} has no column {', '.join(missing)}; its first line is '{','.join(header)[:80]}'",
            allowed=f"a first line '{_COLUMNS}', in any order, with further columns if you like",
            remedy="; ".join(hints) or "name the columns so",
        )


def _point(row: Mapping[str, str], number: int, path: Path) -> Point | None:
    if not any(row[axis] for axis in "xyz"):
        return None
    values = []
    for axis in "xyz":
        try:
            value = float(row[axis])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{axis} of landmark '{row['landmark']}' is '{row[axis]}' in line {number} of {path}",
                allowed="a number in mm with a decimal point; all three empty where the landmark is not there",
                case=row["case"],
            )
        values.append(value)
    x, y, z = values
    return x, y, z
