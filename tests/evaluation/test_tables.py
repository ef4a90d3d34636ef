"""What is written can be read back: JSON, CSV and the terminal's table."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from farvox.errors import ResourceError, UsageError
from farvox.evaluation import METRICS, build_metrics, evaluate_case, render_table, write_metrics
from farvox.geometry import Grid
from farvox.labels import LabelTable

LABELS = LabelTable.from_mapping({2: "tumour, [core]", 5: "oedema"})


@pytest.fixture
def document():
    grid = Grid((6, 6, 6), np.eye(4))
    cases = []
    for shift in (0, 1):
        reference = np.zeros(grid.shape, np.uint8)
        reference[1:3, 1:3, 1:3] = 1
        row = evaluate_case(np.roll(reference, shift, 0), reference, grid, LABELS, 0.5)
        cases.append({"case": f"p{shift}", "prediction": "a", "reference": "b", "scan": None, **row})
    return build_metrics(cases, LABELS, 0.5)


def test_json_round_trip(document, tmp_path):
    write_metrics(document, tmp_path / "new" / "metrics.json")
    text = (tmp_path / "new" / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == document
    assert document["cases"][0]["labels"]["5"]["dice"] is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "metrics.json"]


def test_csv_has_a_row_a_case_and_label(document, tmp_path):
    write_metrics(document, tmp_path / "metrics.json")
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "label", "name", *METRICS]
    assert [(row["case"], row["label"], row["name"]) for row in rows] == [
        (case, value, name) for case in ("p0", "p1") for value, name in (("2", "tumour, [core]"), ("5", "oedema"))
    ]
    for row in rows:
        figures = next(case for case in document["cases"] if case["case"] == row["case"])["labels"][row["label"]]
        assert {metric: float(row[metric]) if row[metric] else None for metric in METRICS} == figures


def test_nan_is_refused_and_the_old_file_stays(document, tmp_path):
    write_metrics(document, tmp_path / "metrics.json")
    before = (tmp_path / "metrics.json").read_bytes()
    document["tolerance_mm"] = math.nan
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(document, tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_place_that_cannot_be_written_to(document, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot write"):
        write_metrics(document, tmp_path / "file" / "metrics.json")


def test_csv_as_target_is_refused(document, tmp_path):
    with pytest.raises(UsageError, match=r"metrics\.json"):
        write_metrics(document, tmp_path / "metrics.csv")


def test_table_shows_mean_spread_and_interval(document):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_table(document))
    lines = console.export_text().splitlines()
    tumour = next(line for line in lines if "2 tumour, [core]" in line)
    assert "0.750 ± 0.354" in tumour
    assert "0.50 ± 0.71" in tumour
    assert "[0.500, 1.000]" in lines[lines.index(tumour) + 1]
    oedema = next(line for line in lines if "5 oedema" in line)
    assert oedema.count("–") == 3
    assert any("foreground" in line and "0.750" in line for line in lines)
