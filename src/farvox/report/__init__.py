"""A run, or several beside each other, told in one HTML file that needs nothing else: numbers, curves, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farvox.runs.run import FoldRun
    from farvox.runs.schema import Comparison

__all__ = ["write_comparison", "write_report"]


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder from the documents in it and the scans they name.

    Whatever is missing (a scan moved away, no validated case, a log) is replaced by a note that says so.

    Args:
        run: Folder with `summary.json` and `fold-N` folders; either may still be missing, but not both.

    Returns:
        The file written.

    Raises:
        UsageError: The folder holds no run.
        FarvoxError: A document of the run is not JSON.
    """
    from farvox.report.page import page
    from farvox.runs.run import Run

    run = Path(run)
    out = run / "report.html"
    out.write_text(page(Run.read(run)), encoding="utf-8")
    return out


def write_comparison(folder: Path, comparison: Comparison, folds: Mapping[str, Sequence[FoldRun]]) -> Path:
    """Write `report.html` about several recipes into a folder.

    Args:
        folder: Where to write.
        comparison: The comparison.
        folds: Recipe → its folds, for the learning curves.

    Returns:
        The file written.

    Raises:
        ResourceError: The folder cannot be written to.
    """
    from farvox._atomic import write_text
    from farvox.report.comparison import comparison_page

    out = Path(folder) / "report.html"
    write_text(out, comparison_page(comparison, folds))
    return out
