"""Comparison of recipes from their run folders: quality, cost and significance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from farvox.comparison.collect import RecipeResult, collect_results, parse_run_name
from farvox.comparison.comparison import make_comparison
from farvox.comparison.paired import holm, paired_difference
from farvox.runs.schema import Comparison

__all__ = [
    "RecipeResult",
    "collect_results",
    "compare_runs",
    "holm",
    "make_comparison",
    "paired_difference",
    "parse_run_name",
]


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    *,
    strict: bool = False,
    dataset_cases: Collection[str] | None = None,
    failed: Sequence[str] = (),
) -> Comparison:
    """Compare runs, and write `comparison.json`, `comparison.csv` and `report.html`.

    Args:
        folders: Run folders; the others are compared with the recipe of the first.
        out: Folder to write to; created if missing.
        strict: Raise an error if the cases differ, instead of comparing the common cases with a note.
        dataset_cases: Ids of the dataset's cases, if the dataset is available.
        failed: Messages about folds that could not be trained.

    Raises:
        UsageError: As from `collect_results` and `make_comparison`.
        DataError: The same case was evaluated with another reference.
        ResourceError: The folder cannot be written to.
    """
    from farvox._atomic import write_text
    from farvox.report import write_comparison

    results, missing = collect_results(folders, dataset_cases)
    validated = set().union(*(recipe.cases for recipe in results))
    if dataset_cases is not None and validated and len(validated) < len(set(dataset_cases)):
        missing.append(f"{len(validated)} of the dataset's {len(set(dataset_cases))} cases have been validated so far")
    comparison = make_comparison(results, missing, strict=strict).model_copy(update={"failed": tuple(failed)})
    comparison.write(out / "comparison.json")
    write_text(out / "comparison.csv", comparison.csv())
    folds = {recipe.name: [fold.run for fold in recipe.folds] for recipe in results}
    return comparison.model_copy(update={"report": write_comparison(out, comparison, folds)})
