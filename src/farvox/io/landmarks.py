"""Landmark tables: CSV files of points in mm."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farvox._atomic import write_text
from farvox.errors import DataError, suggest
from farvox.io.names import case_id_from_path
from farvox.types import PathLike

Point = tuple[float, float, float]
"""Scanner coordinates in mm, RAS+ as in NIfTI: x grows to the patient's right, y to the front, z to the head."""

COLUMNS = ("case", "landmark", "x", "y", "z")
"""Columns that a landmark file must have; further columns are ignored."""

_COLUMNS = ",".join(COLUMNS)


@dataclass(frozen=True)
class LandmarkTable:
    """The content of a landmark file.

    Args:
        path: The file.
        names: Every landmark once, in the order of first appearance.
        points: Case id → landmark → point; a landmark without coordinates is left out.
    """

    path: Path
    names: tuple[str, ...]
    points: Mapping[str, Mapping[str, Point]]


@dataclass(frozen=True)
class LandmarkRow:
    """A row of `write_landmarks`: a landmark of a case, its point (None if not found), and further columns by name."""

    case: str
    landmark: str
    point: Point | None
    facts: Mapping[str, str | float | int] = field(default_factory=dict)


def read_landmarks(path: PathLike) -> LandmarkTable:
    """Read a CSV file with the columns case, landmark, x, y, z (mm, RAS+) and one row for each landmark.

    The case is the case id or the file name of the scan. A row with three empty coordinates marks a landmark as absent.
    The function reads what `write_landmarks` writes.

    Raises:
        DataError: No such file, another kind of file, missing columns, cells that are not numbers, or a duplicate
            landmark.
    """
    path = Path(path)
    lines = _lines(path)
    header = [cell.strip().lower() for cell in next(csv.reader([lines[0]]))]
    _require_columns(header, path)
    points: dict[str, dict[str, Point]] = {}
    line_of: dict[tuple[str, str], int] = {}
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise DataError(
                f"line {number} of {path} has {len(cells)} cells", allowed=f"{len(header)}, as its first line"
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
        case, name = case_id_from_path(Path(row["case"])), row["landmark"]
        if not case or not name:
            raise DataError(f"line {number} of {path} has no {'case' if not case else 'landmark'}")
        if first := line_of.get((case, name)):
            raise DataError(
                f"landmark '{name}' is in lines {first} and {number} of {path}",
                allowed="each landmark once in each case",
                hint="remove one, or give the two structures different names",
                case=case,
            )
        line_of[case, name] = number
        point = _point(row, number, path)
        landmarks = points.setdefault(case, {})
        if point is not None:
            landmarks[name] = point
    if not any(points.values()):
        raise DataError(f"{path} contains no landmark", allowed=f"one row for each landmark below '{_COLUMNS}'")
    return LandmarkTable(path, tuple(dict.fromkeys(name for _, name in line_of)), points)


def write_landmarks(path: PathLike, rows: Sequence[LandmarkRow]) -> None:
    """Write a table for `read_landmarks`, with coordinates to 0.0001 mm that are empty for landmarks not found.

    Raises:
        ResourceError: The disk is full or the folder is not writable.
    """
    extra = list(dict.fromkeys(name for row in rows for name in row.facts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *extra])
    for row in rows:
        cells = ["", "", ""] if row.point is None else [f"{value:.4f}" for value in row.point]
        writer.writerow([row.case, row.landmark, *cells, *(row.facts.get(name, "") for name in extra)])
    write_text(Path(path), text.getvalue())


def _lines(path: Path) -> list[str]:
    """The lines of a file, which must be comma-separated text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text", allowed=f"a CSV file (UTF-8) with the columns {_COLUMNS}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    lines = text.splitlines()
    if not lines:
        raise DataError(f"{path} is empty", allowed=f"a CSV file with the columns {_COLUMNS}")
    if path.suffix.lower() == ".fcsv" or "markups" in lines[0].lower():
        raise DataError(
            f"{path} is a markups file of 3D Slicer",
            allowed=f"a CSV file with the columns {_COLUMNS}",
            hint=f"convert it to a table '{_COLUMNS}'; if CoordinateSystem is LPS (or 1), change the signs of x and y",
        )
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if lines[0].count(mark) >= len(COLUMNS) - 1 > lines[0].count(","):
            raise DataError(
                f"the columns of {path} are separated by {name}",
                allowed="commas, with a point as decimal separator",
                hint="export the table as comma-separated values",
            )
    return lines


def _require_columns(header: Sequence[str], path: Path) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        hints = [f"for {name}: {suggest(name, header)}" for name in missing if name not in "xyz"]
        hints += [f"coordinates are columns x, y and z in mm (found: {', '.join(header)})"] if "x" in missing else []
        raise DataError(
            f"{path} has no column {', '.join(missing)}; its first line is '{','.join(header)[:80]}'",
            allowed=f"a first line '{_COLUMNS}', in any order; further columns are ignored",
            hint="; ".join(hints) or "rename the columns",
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
                allowed="a number in mm with a decimal point, or all three empty for an absent landmark",
                case=row["case"],
            )
        values.append(value)
    x, y, z = values
    return x, y, z
