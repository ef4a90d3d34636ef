"""Recipes side by side, from the runs they left: the papers' tables, with cost and significance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from farvox.comparison.collect import RecipeResult, collect_results, parse_run_name
from farvox.comparison.comparison import comparison_csv, make_comparison
from farvox.comparison.paired import holm, paired_difference
from farvox.comparison.table import render_comparison

__all__ = [
    "RecipeResult",
    "collect_results",
    "compare_runs",
    "comparison_csv",
    "holm",
    "make_comparison",
    "paired_difference",
    "render_comparison",
    "parse_run_name",
]


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    *,
    strict: bool = False,
    known: Collection[str] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `comparison.json`, `comparison.csv` and `report.html` about runs into a folder.

    Args:
        folders: Run folders; the first one's recipe is what the others are compared with.
        out: Where to write; made where it is missing.
        strict: Refuse runs whose cases differ, instead of comparing over the cases in common with a note.
        known: Ids of the dataset's cases, where there is a dataset at hand.
        notes: Further lines for the document's "notes".

    Returns:
        The content of `comparison.json`.

    Raises:
        UsageError: As `collect` and `make_comparison`.
        DataError: The same case was evaluated with another reference.
        ResourceError: The folder cannot be written to.
    """
    from farvox._atomic import write_json, write_text
    from farvox.report import write_comparison

    compared, missing = collect_results(folders, known)
    seen = set().union(*(recipe.cases for recipe in compared))
    if known is not None and seen and len(seen) < len(set(known)):
        missing.append(f"{len(seen)} of the dataset's {len(set(known))} cases were validated so far")
    document = make_comparison(compared, [*notes, *missing], strict=strict)
    write_json(out / "comparison.json", document)
    write_text(out / "comparison.csv", comparison_csv(document))
    write_comparison(out, document, {recipe.name: recipe.folds for recipe in compared})
    return document
