"""HTML reports of runs and comparisons, each a single file without external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from farvox.types import PathLike

if TYPE_CHECKING:
    from farvox.runs.run import FoldRun
    from farvox.runs.schema import Comparison

__all__ = ["write_comparison", "write_report"]


def write_report(run: PathLike) -> Path:
    """Write `report.html` into a run folder.

    Missing files (a scan that was moved, metrics, a log) are replaced by a note.

    Args:
        run: Folder with `summary.json` and `fold-N` folders; one of them may be missing.

    Returns:
        The file written.

    Raises:
        UsageError: The folder contains no run.
        FarvoxError: A file of the run is not JSON.
        ResourceError: The folder cannot be written to.
    """
    from farvox._atomic import write_text
    from farvox.report.run_page import run_page
    from farvox.runs.run import Run

    results = Run.read(run)
    write_text(results.report, run_page(results))
    return results.report


def write_comparison(folder: Path, comparison: Comparison, folds: Mapping[str, Sequence[FoldRun]]) -> Path:
    """Write `report.html` about several recipes into a folder.

    Args:
        folder: Folder to write to.
        comparison: The comparison.
        folds: Recipe → its folds, for the learning curves.

    Returns:
        The file written.

    Raises:
        ResourceError: The folder cannot be written to.
    """
    from farvox._atomic import write_text
    from farvox.report.comparison_page import comparison_page

    path = Path(folder) / "report.html"
    write_text(path, comparison_page(comparison, folds))
    return path
