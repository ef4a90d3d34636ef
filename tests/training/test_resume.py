"""Kills, interrupts and resumes of real training processes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from farvox.bundle import load_bundle
from farvox.prediction import Predictor
from tests.training.runs import QUICK, farvox, make_dataset, start_farvox

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes")


def _train(dataset: Path, out: Path, *more: str) -> list[str | Path]:
    return ["train", dataset, "--out", out, "--folds", "4", "--fold", "0", "--epochs", "60", *QUICK, *more]


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    done = farvox(*_train(dataset, out))
    assert done.returncode == 0, done.stderr
    return out / "fold-0"


def _events(fold: Path) -> list[dict]:
    return [json.loads(line) for line in (fold / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def _repeatable(fold: Path) -> list[dict]:
    return [{k: v for k, v in e.items() if k not in ("seconds", "peak_memory_mb")} for e in _events(fold)]


def test_resumed_after_kills_gives_the_same_weights_to_the_bit(
    dataset: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    fold = tmp_path / "run" / "fold-0"
    kills = 0
    for wait in (0.0, 0.15, 0.4):
        process = start_farvox(*_train(dataset, tmp_path / "run", "--resume"))
        until = time.monotonic() + 120
        began = (fold / "checkpoint.pt").stat().st_mtime_ns if (fold / "checkpoint.pt").exists() else 0
        while process.poll() is None and time.monotonic() < until:
            if (fold / "checkpoint.pt").exists() and (fold / "checkpoint.pt").stat().st_mtime_ns > began:
                break
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert not (fold / "result.json").exists()
    assert kills == 3
    done = farvox(*_train(dataset, tmp_path / "run", "--resume"))
    assert done.returncode == 0, done.stderr
    wanted = load_file(uninterrupted / "bundle" / "weights.safetensors")
    found = load_file(fold / "bundle" / "weights.safetensors")
    assert wanted.keys() == found.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert _repeatable(fold) == _repeatable(uninterrupted)
    assert not (fold / "checkpoint.pt").exists()
    assert not (fold / "prepared").exists()


def test_ctrl_c_ends_with_a_usable_bundle_and_can_go_on(dataset: Path, uninterrupted: Path, tmp_path: Path) -> None:
    fold = tmp_path / "run" / "fold-0"
    process = start_farvox(*_train(dataset, tmp_path / "run"))
    while not (fold / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "interrupted after" in said
    assert "--resume" in said
    assert load_bundle(fold / "bundle").manifest.training["stop_reason"] == "interrupted"
    mask = Predictor.load(fold / "bundle", device="cpu").segment(dataset / "imagesTr" / "case_0.nii.gz")
    assert mask.shape == (20, 18, 16)
    done = farvox(*_train(dataset, tmp_path / "run", "--resume"))
    assert done.returncode == 0, done.stderr
    wanted = load_file(uninterrupted / "bundle" / "weights.safetensors")
    for name, value in load_file(fold / "bundle" / "weights.safetensors").items():
        np.testing.assert_array_equal(value, wanted[name])


def test_a_second_run_does_not_touch_the_first(dataset: Path, uninterrupted: Path) -> None:
    run = uninterrupted.parent
    before = (uninterrupted / "bundle" / "weights.safetensors").read_bytes()
    again = farvox(*_train(dataset, run))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "--resume" in again.stderr
    resumed = farvox(*_train(dataset, run, "--resume"))
    assert resumed.returncode == 0
    assert "fold 0 is complete" in resumed.stderr
    assert (uninterrupted / "bundle" / "weights.safetensors").read_bytes() == before


def test_other_settings_on_resume_are_refused_by_name(dataset: Path, tmp_path: Path) -> None:
    fold = tmp_path / "run" / "fold-0"
    process = start_farvox(*_train(dataset, tmp_path / "run"))
    while not (fold / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    other = farvox(*_train(dataset, tmp_path / "run", "--resume", "--set", "train.learning_rate=0.5"))
    assert other.returncode == 2
    assert "started with other settings; now: learning_rate = 0.5" in other.stderr
    split = farvox(*_train(dataset, tmp_path / "run", "--resume", "--folds", "2"))
    assert split.returncode == 2
    assert "started with other split" in split.stderr


def test_what_a_run_leaves_behind(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {"bundle", "result.json", "log.jsonl", "metrics.csv", "metrics.json", "predictions", "split.json"}
    metrics = json.loads((uninterrupted / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["summary"]["foreground"]["dice"]["mean"] > 0.8
    assert [case["case"] for case in metrics["cases"]] == json.loads(
        (uninterrupted / "split.json").read_text(encoding="utf-8")
    )["validation_cases"]
    manifest = load_bundle(uninterrupted / "bundle").manifest
    assert manifest.metrics == metrics["summary"]
    assert [entry.value for entry in manifest.labels] == [0, 3, 7]
    summary = json.loads((uninterrupted.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["folds"]["0"]["dice"] == metrics["summary"]["foreground"]["dice"]["mean"]
    assert (uninterrupted.parent / "report.html").stat().st_size > 10_000
    events = [event["event"] for event in _events(uninterrupted)]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert events.count("epoch") == 60
    assert events.count("validation") == 10
