"""Files and tables of metrics: JSON, CSV, terminal and notebook."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from farvox.errors import ResourceError, UsageError
from farvox.evaluation import METRICS, Metrics, build_metrics, evaluate_case
from farvox.geometry import Grid
from farvox.labels import LabelTable

LABELS = LabelTable.from_mapping({2: "tumour, [core]", 5: "oedema"})


@pytest.fixture
def metrics():
    grid = Grid((6, 6, 6), np.eye(4))
    cases = []
    for shift in (0, 1):
        reference = np.zeros(grid.shape, np.uint8)
        reference[1:3, 1:3, 1:3] = 1
        cases.append(evaluate_case(np.roll(reference, shift, 0), reference, grid, LABELS, 0.5, f"p{shift}"))
    return build_metrics(cases, LABELS, 0.5)


def test_json_round_trip(metrics, tmp_path):
    metrics.write(tmp_path / "new" / "metrics.json")
    path = tmp_path / "new" / "metrics.json"
    assert Metrics.read(path) == metrics
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["format"] == "farvox-metrics/2"
    assert content["cases"][0]["labels"]["5"]["dice"] is None
    assert content["summary"]["foreground"]["dice"]["ci_low"] == 0.5
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "metrics.json"]


def test_csv_has_one_row_per_case_and_label(metrics, tmp_path):
    metrics.write(tmp_path / "metrics.json")
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "label", "name", *METRICS]
    assert [(row["case"], row["label"], row["name"]) for row in rows] == [
        (case, value, name) for case in ("p0", "p1") for value, name in (("2", "tumour, [core]"), ("5", "oedema"))
    ]
    for row in rows:
        values = next(case for case in metrics.cases if case.case == row["case"]).labels[int(row["label"])]
        assert {metric: float(row[metric]) if row[metric] else None for metric in METRICS} == values.model_dump()


def test_nan_is_refused_and_the_previous_file_is_kept(metrics, tmp_path):
    metrics.write(tmp_path / "metrics.json")
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        metrics.model_copy(update={"tolerance_mm": math.nan}).write(tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_to(metrics, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot write"):
        metrics.write(tmp_path / "file" / "metrics.json")


def test_csv_as_target_is_refused(metrics, tmp_path):
    with pytest.raises(UsageError, match=r"metrics\.json"):
        metrics.write(tmp_path / "metrics.csv")


def test_table_shows_mean_sd_and_interval(metrics):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(metrics.table())
    lines = console.export_text().splitlines()
    tumour = next(line for line in lines if "2 tumour, [core]" in line)
    assert "0.750 ± 0.354" in tumour
    assert "0.50 ± 0.71" in tumour
    assert "[0.500, 1.000]" in lines[lines.index(tumour) + 1]
    oedema = next(line for line in lines if "5 oedema" in line)
    assert oedema.count("–") == 3
    assert any("foreground" in line and "0.750" in line for line in lines)


def test_notebook_table(metrics):
    assert "<td>2 tumour, [core]</td><td>2</td><td>0.750 ± 0.354<br>[0.500, 1.000]</td>" in metrics._repr_html_()


def test_files_of_version_1_are_read(tmp_path):
    old = {
        "format": "farvox-metrics/1",
        "rule": "absent in both: left out",
        "tolerance_mm": 1.5,
        "labels": [{"value": 3, "name": "liver"}],
        "cases": [{"case": "a", "prediction": None, "labels": {"3": {"dice": 0.5}}, "mean": {"dice": 0.5}}],
        "summary": {
            "labels": {},
            "foreground": {"dice": {"mean": 0.5, "sd": 0.1, "low": 0.4, "high": 0.6, "cases": 2}},
        },
    }
    (tmp_path / "metrics.json").write_text(json.dumps(old), encoding="utf-8")
    metrics = Metrics.read(tmp_path / "metrics.json")
    assert metrics.absent_rule == "absent in both: left out"
    assert (metrics.cases[0].labels[3].dice, metrics.cases[0].mean.hd95_mm) == (0.5, None)
    assert (metrics.summary.foreground.dice.ci_low, metrics.summary.foreground.dice.ci_high) == (0.4, 0.6)
