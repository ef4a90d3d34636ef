"""Runs beyond the plain one: two processes, a full disk, all cases, every shipped recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from farvox.bundle import load_bundle
from farvox.recipes import list_recipes, load_recipe
from tests.contracts.test_models import SMALL
from tests.training.runs import QUICK, farvox, make_dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes")


def test_two_processes_share_a_fold_and_one_of_them_writes(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = farvox(
        *("train", dataset, "--out", out, "--folds", "4", "--fold", "0", "--epochs", "30", *QUICK),
        *("--set", "train.batch=1", "--device", "cpu", "--devices", "2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["folds"]["0"]["dice"] > 0.5
    events = [json.loads(line) for line in (out / "fold-0" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert events[0]["devices"] == 2
    # Three cases, two at a time: two steps an epoch.
    assert [event["step"] for event in events if event["event"] == "epoch"] == list(range(2, 62, 2))
    assert done.stderr.count("3 training cases") == 1


def test_a_full_disk_ends_in_one_line_and_no_bundle(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", str(dataset), "--out", str(out), "--fold", "0", "--epochs", "2", *QUICK]
    for limit, word in ((15_000, "cannot write"), (40_000, "cannot write")):
        script = (
            "import resource, signal, sys\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            f"sys.argv = ['farvox', *{arguments!r}]\n"
            "from farvox.cli import main\nmain()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr, done.stderr
        assert word in done.stderr.strip().splitlines()[-1]
        assert not (out / "fold-0" / "bundle").exists()
        assert not list(out.glob("**/*.tmp"))
    again = farvox(*arguments)
    assert again.returncode == 0, again.stderr


def test_all_cases_without_validation(dataset: Path, tmp_path: Path) -> None:
    done = farvox("train", dataset, "--out", tmp_path, "--all", "--epochs", "2", *QUICK)
    assert done.returncode == 0, done.stderr
    fold = tmp_path / "fold-all"
    assert load_bundle(fold / "bundle").manifest.metrics is None
    assert not (fold / "metrics.json").exists()
    assert (tmp_path / "report.html").exists()


def test_a_short_budget_is_kept_and_leave_one_out_covers_every_case(dataset: Path, tmp_path: Path) -> None:
    done = farvox("train", dataset, "--out", tmp_path, "--leave-one-out", "--budget", "1s", *QUICK)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["folds"]) == {"0", "1", "2", "3"}
    assert all(1 <= fold["seconds"] < 3 for fold in summary["folds"].values())
    assert summary["summary"]["foreground"]["dice"]["cases"] == 4


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_shipped_recipe_trains(recipe: str, dataset: Path, tmp_path: Path) -> None:
    small, chosen = [], load_recipe(recipe)
    if chosen.model.name in SMALL and isinstance(chosen.patch.size, tuple):
        options = ", ".join(f"{key} = {value}" for key, value in SMALL[chosen.model.name].items())
        changes = [f"model.options={{{options}}}", "patch.size=[16, 16, 16]", "train.batch=2"]
        small = [part for change in changes for part in ("--set", change)]
    if chosen.points.count:
        small = ["--set", "points.count=32", "--set", "points.steps_per_epoch=3"]
    done = farvox("train", dataset, "--recipe", recipe, "--out", tmp_path, "--fold", "0", "--epochs", "1", *small)
    assert done.returncode == 0, done.stderr
    manifest = load_bundle(tmp_path / "fold-0" / "bundle").manifest
    wanted = (1.5, 1.5, 2) if chosen.grid.spacing == "auto" else chosen.grid.spacing
    np.testing.assert_allclose(manifest.preprocessing.spacing, wanted)
    assert manifest.training["stop_reason"] == "epochs"
