"""`farvox compare`: parsing, errors before any work, and a small comparison."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from farvox.cli.app import app
from farvox.cli.compare import expand_multi_value_options
from farvox.errors import FarvoxError, RecipeError, UsageError
from tests.comparison.runs import write_run
from tests.comparison.test_comparison import FOLDS, SMALL, moved
from tests.training.runs import QUICK, farvox, make_dataset


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes", cases=4)


def test_options_take_words_up_to_the_next_option() -> None:
    words = ["data", "--recipes", "A", "B", "--folds", "3", "--seeds", "0", "1", "--json", "--runs", "r"]
    expanded = expand_multi_value_options(words, ("--recipes", "--seeds", "--runs"))
    assert " ".join(expanded) == "data --recipes A --recipes B --folds 3 --seeds 0 --seeds 1 --json --runs r"
    assert expand_multi_value_options([], ("--runs",)) == []


def test_existing_runs_are_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "small", FOLDS, options=SMALL), write_run(tmp_path / "large", moved(0.05))]
    done = compare("--runs", *runs, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in document["recipes"]] == ["small", "large"]
    assert document["recipes"][1]["difference"]["mean"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ([], UsageError, "no dataset given"),
        (["DATA"], UsageError, "no recipe"),
        (["DATA", "--runs", "x"], UsageError, "runs together with a dataset"),
        (["DATA", "--recipes", "quick", "quick"], UsageError, "each recipe once"),
        (["DATA", "--recipes", "quick", "quik"], RecipeError, "no recipe 'quik'"),
        (["DATA", "--recipes", "quick", "--budget", "1m", "--epochs", "2"], UsageError, "both a budget and epochs"),
        (["--recipes", "quick"], UsageError, "no dataset given"),
        (["DATA", "--recipes", "quick", "--folds", "2", "--fold", "2"], UsageError, "fold 2"),
        (["DATA", "--recipes", "quick", "--folds", "2", "--train-cases", "3"], UsageError, "3 training cases"),
        (["--runs", "/nowhere/run"], UsageError, "contains no run"),
    ],
)
def test_wrong_usage_is_one_line_before_any_work(
    dataset: Path, tmp_path: Path, arguments: list[str], error: type[FarvoxError], word: str
) -> None:
    out = tmp_path / "out"
    done = compare(*(str(dataset) if one == "DATA" else one for one in arguments), "--out", out)
    assert isinstance(done.exception, error), done.exception
    assert word in str(done.exception)
    assert not out.exists()


@pytest.mark.long
def test_recipes_are_trained_on_the_same_folds_and_finished_ones_are_kept(dataset: Path, tmp_path: Path) -> None:
    for name, rate in (("slow", 0.001), ("fast", 0.02)):
        (tmp_path / f"{name}.toml").write_text(
            f'[model]\nname = "unet3d"\n[train]\nlearning_rate = {rate}\n', encoding="utf-8"
        )
    out = tmp_path / "out"
    command = ["compare", str(dataset), "--out", str(out), "--folds", "2", "--epochs", "2", *QUICK]
    recipes = ["--recipes", *(str(tmp_path / f"{name}.toml") for name in ("slow", "fast"))]
    first = farvox(*command, *recipes, "--fold", "1", "--train-cases", "1", "--seeds", "3")
    assert first.returncode == 0, first.stderr
    names = ["slow-seed-3", "fast-seed-3"]
    splits = {name: json.loads((out / name / "fold-1" / "split.json").read_text(encoding="utf-8")) for name in names}
    assert len({tuple(split["validation_cases"]) for split in splits.values()}) == 1
    assert splits["slow-seed-3"]["training_cases"] == splits["fast-seed-3"]["training_cases"]
    assert len(splits["slow-seed-3"]["training_cases"]) == 1
    weights = {name: (out / name / "fold-1" / "bundle" / "weights.safetensors").read_bytes() for name in names}
    assert len(set(weights.values())) == 2
    assert (out / "fast-seed-3" / "report.html").exists()

    again = farvox(*command, *recipes, "--train-cases", "1", "--seeds", "3")
    assert again.returncode == 2
    assert "use --resume" in again.stderr
    resumed = farvox(*command, *recipes, "--train-cases", "1", "--seeds", "3", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert {n: (out / n / "fold-1" / "bundle" / "weights.safetensors").read_bytes() for n in names} == weights
    assert resumed.stderr.count("already complete") == 2
    document = json.loads(resumed.stdout)
    slow, fast = document["recipes"]
    assert (slow["name"], slow["seeds"], fast["difference"]["pairs"]) == ("slow", [3], 4)
    assert len(document["cases"]) == 4
    assert slow["training_cases"] == [1, 1]
    assert slow["prediction_seconds"] > 0
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in rows] == [
        row["summary"]["foreground"]["dice"]["mean"] for row in document["recipes"]
    ]
