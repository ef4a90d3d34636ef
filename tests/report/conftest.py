"""A rendered run for the tests that only read the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from farvox.report import write_report
from tests.report.runs import write_run

NAMES = {1: "Liver", 2: "Kidney <b>&right</b>", 63: "Spleen"}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds and three cases with all files; tests must not change it."""
    folder = write_run(tmp_path_factory.mktemp("report") / "run", NAMES)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> str:
    """Its report."""
    return (run / "report.html").read_text(encoding="utf-8")
