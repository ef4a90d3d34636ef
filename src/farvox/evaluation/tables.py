"""Figures for people and programs: `metrics.json`, a CSV beside it, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farvox._atomic import write_text
from farvox.errors import UsageError
from farvox.evaluation.cases import METRICS

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = {"dice": ("Dice", 3), "hd95_mm": ("HD95, mm", 2), "surface_dice": ("surface Dice", 3)}
"""Columns of the terminal's table: as many as fit 80 characters, the rest stands in the files."""


def write_metrics(document: dict[str, Any], path: Path) -> None:
    """Write the document as JSON to `path` and one row a case and label as CSV beside it, same stem.

    Each file appears whole or not at all. Undefined figures are `null` in JSON and empty in CSV.

    Args:
        document: What `evaluate_folder` or `build_metrics` gives.
        path: The JSON file; missing folders are made.

    Raises:
        ResourceError: The disk is full or the folder cannot be written to.
        UsageError: `path` ends in .csv.
        ValueError: The document holds NaN or infinite figures.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        raise UsageError(
            f"the figures were to be written to {path.name}",
            allowed="a .json file; the .csv is written beside it",
            hint=f"name it {path.with_suffix('.json').name}",
        )
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(path.with_suffix(".csv"), _csv(document))


def render_table(document: dict[str, Any]) -> Table:
    """Summary per label and over the foreground: mean ± standard deviation, 95 % interval of the mean below.

    "cases" counts those with a defined Dice.

    Args:
        document: What `evaluate_folder` or `build_metrics` gives.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=f"mean ± sd [95 % interval of the mean]; surface Dice at {document['tolerance_mm']:.3g} mm")
    table.add_column("label")
    table.add_column("cases", justify="right")
    for title, _ in _SHOWN.values():
        table.add_column(title, justify="right", no_wrap=True)
    summary = document["summary"]
    for label in document["labels"]:
        table.add_row(Text(f"{label['value']} {label['name']}"), *_cells(summary["labels"][str(label["value"])]))
    table.add_section()
    table.add_row("foreground", *_cells(summary["foreground"]))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    shown = (_cell(row[metric], digits) for metric, (_, digits) in _SHOWN.items())
    return [str(row["dice"]["cases"]), *shown]


def _cell(entry: dict[str, Any], digits: int) -> str:
    if entry["mean"] is None:
        return "–"
    if entry["sd"] is None:
        return f"{entry['mean']:.{digits}f}"
    return (
        f"{entry['mean']:.{digits}f} ± {entry['sd']:.{digits}f}\n"
        f"[{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
    )


def _csv(document: dict[str, Any]) -> str:
    names = {str(label["value"]): label["name"] for label in document["labels"]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "label", "name", *METRICS])
    for case in document["cases"]:
        for value, figures in case["labels"].items():
            writer.writerow([case["case"], value, names[value], *(figures[metric] for metric in METRICS)])
    return text.getvalue()
