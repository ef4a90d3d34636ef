"""Which folds may share a run folder, and that a refused command changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.runs import QUICK, farvox, make_dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes", cases=6)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    done = farvox("train", dataset, "--out", out, "--folds", "3", "--epochs", "1", *QUICK)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--folds", "2", "--fold", "0", "--resume"], "other split"),
        (["--folds", "6", "--fold", "5"], "other split"),
        (["--folds", "3", "--fold", "0", "--resume", "--set", "train.batch=3"], "now: batch = 3"),
        (["--folds", "3", "--fold", "0", "--overwrite", "--set", "model.options={width=[4]}"], "width"),
        (["--folds", "3", "--fold", "0", "--overwrite", "--set", "model.options={widths=4}"], "widths"),
        (["--folds", "3", "--fold", "0", "--overwrite", "--device", "cpu:3"], "cpu:3"),
        (["--folds", "3", "--fold", "0", "--overwrite", "--set", "train.budget=0s"], "0s"),
    ],
)
def test_folds_of_other_runs_are_refused_and_nothing_is_changed(
    dataset: Path, run: Path, arguments: list[str], word: str
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    length = [] if "train.budget=0s" in arguments else ["--epochs", "1"]
    done = farvox("train", dataset, "--out", run, *QUICK, *length, *arguments)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert word in done.stderr.strip().splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_network_of_all_cases_is_added_to_its_cross_validation(dataset: Path, run: Path) -> None:
    cases = json.loads((run / "summary.json").read_text(encoding="utf-8"))["summary"]["foreground"]["dice"]["cases"]
    done = farvox("train", dataset, "--out", run, "--folds", "3", "--all-cases", "--epochs", "1", *QUICK)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["folds"]) == {"0", "1", "2", "all"}
    assert summary["summary"]["foreground"]["dice"]["cases"] == cases == 6


def test_bundles_come_before_scans(run: Path, dataset: Path, tmp_path: Path) -> None:
    bundle, scan = run / "fold-0" / "bundle", dataset / "imagesTr" / "case_0.nii.gz"
    done = farvox("predict", bundle, scan, run / "fold-1" / "bundle", "--out", tmp_path)
    assert done.returncode == 2
    assert "comes after a scan" in done.stderr
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "recipe.toml").write_text("", encoding="utf-8")
    done = farvox("predict", bundle, tmp_path / "damaged", scan, "--out", tmp_path)
    assert done.returncode == 1
    assert "has no weights.safetensors, manifest.json" in done.stderr


def test_a_run_of_an_earlier_release_is_continued(dataset: Path, run: Path, tmp_path: Path) -> None:
    """`split.json` with the earlier keys, also in its recipe."""
    old = shutil.copytree(run, tmp_path / "run")
    path = old / "fold-0" / "split.json"
    split = json.loads(path.read_text(encoding="utf-8"))
    split["training"], split["validation"] = split.pop("training_cases"), split.pop("validation_cases")
    split["recipe"] = [line.replace("gradient_clip_norm", "clip_gradient") for line in split["recipe"]]
    assert any("clip_gradient" in line for line in split["recipe"])
    path.write_text(json.dumps(split), encoding="utf-8")
    done = farvox("train", dataset, "--out", old, "--folds", "3", "--epochs", "1", "--resume", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is complete") == 3
