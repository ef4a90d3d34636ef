"""`farvox demo` as a newcomer runs it, only shorter: it ends with a report and leaves nothing but results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import farvox

pytestmark = pytest.mark.long


def test_the_demo_leaves_a_report_and_no_working_files(tmp_path: Path) -> None:
    done = farvox("demo", "--out", tmp_path / "demo", "--budget", "2s", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "mean foreground Dice on 4 validation phantoms" in done.stdout
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "phantoms",
        "fold-0",
        "report.html",
        "summary.json",
    }
    left = {path.name for path in (tmp_path / "demo" / "fold-0").iterdir()}
    assert left == {"bundle", "log.jsonl", "metrics.csv", "metrics.json", "predictions", "result.json", "split.json"}
    assert len(list((tmp_path / "demo" / "fold-0" / "predictions").iterdir())) == 4
