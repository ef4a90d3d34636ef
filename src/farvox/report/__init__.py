"""A run told in one HTML file that needs nothing else: numbers, curves, spread over cases, pictures."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_report"]


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
    from farvox.report.run_files import RunFiles

    run = Path(run)
    out = run / "report.html"
    out.write_text(page(RunFiles.read(run)), encoding="utf-8")
    return out
