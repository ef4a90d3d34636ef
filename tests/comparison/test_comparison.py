"""Comparison of runs: recipes and cases that are compared, runs that are refused, and the files written."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farvox.comparison import (
    compare_runs,
    make_comparison,
    paired_difference,
)
from farvox.comparison.collect import collect_results, parse_run_name
from farvox.errors import DataError, FarvoxError, UsageError
from farvox.evaluation import bootstrap_interval
from farvox.labels import LabelTable
from farvox.models import create_model
from farvox.profiling.cost import multiply_adds
from farvox.runs.schema import Comparison
from tests.comparison.runs import write_run

FOLDS = {"0": {"a": (0.9, 0.7), "b": (0.8, 0.6)}, "1": {"c": (0.7, None), "d": (0.6, 0.4)}}
SMALL = {"widths": [4, 8]}


def moved(by: float) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """The folds with every Dice changed by a constant."""
    return {
        name: {case: tuple(None if d is None else d + by for d in dice) for case, dice in cases.items()}  # type: ignore[misc]
        for name, cases in FOLDS.items()
    }


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / "small", FOLDS, options=SMALL, parameters=700, minutes=3, memory=300),
        write_run(tmp_path / "large", moved(0.05), options={"widths": [8, 16]}, parameters=2800, minutes=6, memory=900),
    ]


def test_a_row_contains_quality_and_cost(runs: list[Path], tmp_path: Path) -> None:
    document = compare_runs(runs, tmp_path / "out")
    small, large = document.recipes
    assert document.cases == ("a", "b", "c", "d")
    means = [0.8, 0.7, 0.7, 0.5]
    overall = small.summary.foreground.dice
    assert overall.mean == pytest.approx(np.mean(means))
    assert (overall.ci_low, overall.ci_high) == pytest.approx(bootstrap_interval(means))
    assert small.summary.labels[1].dice.mean == pytest.approx(0.75)
    assert small.summary.labels[5].dice.cases == 3
    assert small.summary.foreground.hd95_mm.mean == pytest.approx(10 * (1 - np.mean(means)))
    assert (large.parameters, large.training_seconds, large.peak_memory_mb) == (2800, 360, 900)
    assert large.prediction_seconds == 1.5
    assert (small.training_cases, small.budget, small.seeds) == ((2, 2), ("8m",), ())
    counted = multiply_adds(lambda: create_model("unet3d", 1, 3, **SMALL), 1, (16, 16, 16)) / 16**3
    assert small.multiply_adds_per_voxel == pytest.approx(counted, abs=0.01)
    assert small.difference is None
    assert large.difference.mean == pytest.approx(0.05)
    assert large.difference.higher == 4
    (note,) = document.notes
    assert note == "4 pairs are too few for the test: p cannot fall below 0.125, regardless of the difference"


def test_json_csv_and_page_hold_the_same_numbers(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = compare_runs(runs, out)
    assert Comparison.read(out / "comparison.json") == document.model_copy(update={"report": None})
    assert document.report == out / "report.html"
    text = (out / "comparison.csv").read_text(encoding="utf-8")
    assert text == document.csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, recipe in zip(rows, document.recipes, strict=True):
        assert row["recipe"] == recipe.name
        assert float(row["dice"]) == recipe.summary.foreground.dice.mean
        assert float(row["dice left kidney"]) == recipe.summary.labels[5].dice.mean
        assert float(row["multiply_adds_per_voxel"]) == recipe.multiply_adds_per_voxel
        assert int(row["cases"]) == 4
    assert (rows[0]["p"], rows[0]["difference"]) == ("", "")
    assert float(rows[1]["p_holm"]) == document.recipes[1].difference.p_holm
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<b>0\.725</b><small>", page)  # the better mean Dice, in bold
    assert "+0.050" in page
    assert "4 of 4" in page
    assert not re.search(
        r"<script|<link|src=\"(?!data:)|None|nan", re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    )


def test_seeds_are_averaged_case_by_case_first(tmp_path: Path) -> None:
    first = write_run(tmp_path / "plain", FOLDS, options=SMALL)
    seeds = [
        write_run(tmp_path / f"other-seed-{seed}", moved(by), options=SMALL, settings={"train.seed": seed})
        for seed, by in ((0, 0.01), (7, 0.05))
    ]
    document = compare_runs([first, *seeds], tmp_path / "out")
    plain, other = document.recipes
    assert (other.name, other.seeds) == ("other", (0, 7))
    assert len(other.cases) == 4  # not 8
    assert other.cases[0].labels[1].dice == pytest.approx(0.93)
    expected = paired_difference({c.case: c.mean.dice for c in plain.cases}, {c.case: c.mean.dice for c in other.cases})
    assert other.difference == expected.model_copy(update={"p_holm": expected.p})
    assert other.difference.mean == pytest.approx(0.03)
    assert set(other.folds) == {f"other-seed-{s}/fold-{f}" for s in (0, 7) for f in (0, 1)}


def test_several_recipes_are_corrected_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for number in range(3):
        folds = {"0": {f"case_{n}": (float(0.5 + 0.1 * number * rng.uniform()), 0.5) for n in range(9)}}
        made.append(write_run(tmp_path / f"r{number}", folds, options=SMALL))
    differences = [row.difference for row in compare_runs(made, tmp_path / "out").recipes[1:]]
    low, high = sorted(differences, key=lambda d: d.p)
    assert low.p_holm == pytest.approx(min(1, 2 * low.p))
    assert high.p_holm == pytest.approx(max(low.p_holm, high.p))


def test_folds_of_one_run_may_be_in_several_folders(runs: list[Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "machine" / "small"
    elsewhere.mkdir(parents=True)
    shutil.move(runs[0] / "fold-1", elsewhere / "fold-1")
    document = compare_runs([runs[0], elsewhere, runs[1]], tmp_path / "out", strict=True)
    assert document.cases == ("a", "b", "c", "d")
    shutil.copytree(elsewhere / "fold-1", runs[0] / "fold-1")
    with pytest.raises(UsageError, match="fold 1 of small is in"):
        collect_results([runs[0], elsewhere])


def test_incomplete_folds_are_left_out_and_noted(runs: list[Path], tmp_path: Path) -> None:
    (runs[1] / "fold-1" / "result.json").unlink()
    with pytest.raises(UsageError, match=r"large has 2 of 4 cases; missing: c, d; expected: .* same cases"):
        compare_runs(runs, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    document = compare_runs(runs, tmp_path / "out")
    assert document.cases == ("a", "b")
    assert document.recipes[0].summary.foreground.dice.mean == pytest.approx(0.75)
    assert document.notes[:3] == (
        "large: fold 1 is not finished",
        "large has 2 of 4 cases; missing: c, d",
        "all metrics are over the 2 cases that every recipe has",
    )
    (runs[1] / "fold-0" / "result.json").unlink()
    alone = compare_runs(runs, tmp_path / "out")
    assert [row.name for row in alone.recipes] == ["small"]
    assert "large: fold 0, 1 is not finished" in alone.notes


def test_without_a_common_case_there_is_nothing_to_compare(runs: list[Path]) -> None:
    (runs[0] / "fold-0" / "result.json").unlink()
    (runs[1] / "fold-1" / "result.json").unlink()
    compared, notes = collect_results(runs)
    with pytest.raises(UsageError, match="no case was predicted by all of small, large"):
        make_comparison(compared, notes)
    with pytest.raises(UsageError, match="no finished fold"):
        make_comparison([], [])


def test_the_code_of_a_runs_network_is_not_imported(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers_network.py").write_text("def build(in_channels, classes): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    stranger = write_run(tmp_path / "theirs", FOLDS, model="strangers_network:build", parameters=7, minutes=3, memory=9)
    document = compare_runs([runs[0], stranger], tmp_path / "out")
    assert "strangers_network" not in sys.modules
    assert document.recipes[1].multiply_adds_per_voxel is None
    assert any("'strangers_network:build' is not registered" in line for line in document.notes)


def test_missing_files_leave_values_undefined(runs: list[Path], tmp_path: Path) -> None:
    shutil.rmtree(runs[0] / "fold-0" / "bundle")
    (runs[0] / "fold-1" / "log.jsonl").unlink()
    document = compare_runs(runs, tmp_path / "out")
    small = document.recipes[0]
    assert small.multiply_adds_per_voxel is None
    assert small.network == "unet3d"  # from the log
    assert "small: multiply-adds are not counted because there is no bundle" in document.notes
    assert any("different durations" in line for line in document.notes)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"labels": LabelTable((0, 1, 2), ("background", "liver", "spleen"))}, UsageError, "different labels"),
        ({"reference_ml": 101.0}, DataError, "case a: the reference of label 1 has 100 ml"),
    ],
)
def test_other_labels_and_other_references_are_refused(
    runs: list[Path], tmp_path: Path, change: dict[str, Any], error: type[FarvoxError], word: str
) -> None:
    other = write_run(tmp_path / "other", FOLDS, **change)
    with pytest.raises(error, match=word):
        collect_results([runs[0], other])


def test_seeds_with_other_settings_and_unknown_cases_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "small-seed-1", FOLDS, options=SMALL, settings={"train.learning_rate": 0.5})
    with pytest.raises(UsageError, match=r"both named small and have other settings \(learning_rate = 0.5\)"):
        collect_results([runs[0], other])
    with pytest.raises(UsageError, match="contains case d, which is not in the dataset"):
        collect_results(runs, dataset_cases=["a", "b", "c"])
    with pytest.raises(UsageError, match="contains no run"):
        collect_results([tmp_path])
    notes = compare_runs(runs, tmp_path / "out", dataset_cases=[*"abcdef"]).notes
    assert "4 of the dataset's 6 cases have been validated so far" in notes


def test_different_durations_and_training_cases_are_noted(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", FOLDS, options=SMALL)
    second = write_run(tmp_path / "second", FOLDS, options=SMALL, settings={"train.epochs": 30})
    path = second / "fold-0" / "split.json"
    split = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**split, "training_cases": ["c"]}), encoding="utf-8")
    notes = compare_runs([first, second], tmp_path / "out").notes
    assert "trained for different durations: first 8m; second 30 epochs" in notes
    assert "second and first were trained on different cases (for the predictions of a, b)" in notes


def test_folder_names() -> None:
    assert parse_run_name(Path("runs/quick-seed-12")) == ("quick", 12)
    assert parse_run_name(Path("runs/quick")) == ("quick", None)
    assert parse_run_name(Path("a-seed-1-seed-2/")) == ("a-seed-1", 2)


def test_the_table_has_one_row_per_recipe_in_80_columns(runs: list[Path], tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(compare_runs(runs, tmp_path / "out").table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("small", "large", "2,800", "0.675", "0.725", "+0.050", "p 0.12", "6.0"):
        assert shown in text, shown


def test_files_of_version_1_are_read(runs: list[Path], tmp_path: Path) -> None:
    """Runs and comparisons with `done.json`, minutes, and the earlier keys."""
    before = compare_runs(runs, tmp_path / "out")
    for fold in (runs[0] / "fold-0", runs[0] / "fold-1"):
        (fold / "result.json").rename(fold / "done.json")
        for name, keys in (
            ("done.json", {"stop_reason": "reason"}),
            ("split.json", {"training_cases": "training", "validation_cases": "validation"}),
            ("metrics.json", {"absent_rule": "rule", "ci_low": "low", "ci_high": "high"}),
            ("log.jsonl", {"fraction_done": "progress"}),
        ):
            text = (fold / name).read_text(encoding="utf-8")
            for key, old in keys.items():
                text = text.replace(f'"{key}"', f'"{old}"')
            (fold / name).write_text(text, encoding="utf-8")
    assert compare_runs(runs, tmp_path / "out") == before
    row = {"name": "quick", "length": ["8m"], "training_minutes": 2.5, "difference": {"pairs": 2, "low": -1, "high": 1}}
    (tmp_path / "comparison.json").write_text(json.dumps({"rule": "r", "recipes": [row]}), encoding="utf-8")
    comparison = Comparison.read(tmp_path / "comparison.json")
    (read,) = comparison.recipes
    assert (comparison.absent_rule, read.budget, read.training_seconds) == ("r", ("8m",), 150)
    assert (read.difference.ci_low, read.difference.ci_high) == (-1, 1)
