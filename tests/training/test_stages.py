"""Networks trained in stages: which weights a run moves, the same run after a kill, and two processes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from farvox import create_model
from tests.training.runs import farvox, make_dataset, start_farvox

pytestmark = pytest.mark.long

EPOCHS = 6
FUSION = {"down", "bottom", "up", "head"}
SMALL = [
    *("--recipe", "vfn", "--folds", "4", "--fold", "0", "--epochs", str(EPOCHS)),
    *("--set", "patch.size=[16, 16, 16]", "--set", "train.checkpoint_seconds=0"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes")


def _train(dataset: Path, out: Path, share: float, *more: str) -> list[str | Path]:
    options = f"model.options={{widths=[4, 6], views_share={share}}}"
    return ["train", dataset, "--out", out, *SMALL, "--set", options, *more]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "fold-0" / "bundle" / "weights.safetensors")


def _moved(out: Path) -> set[str]:
    """Parts of the network in which any number differs from what the recipe's seed gives."""
    torch.manual_seed(0)
    fresh = create_model("vfn", 1, 3, widths=[4, 6]).state_dict()
    return {key.split(".")[0] for key, value in _weights(out).items() if (value != fresh[key]).any()}


@pytest.mark.parametrize(("share", "moved"), [(1.0, {"views"}), (0.0, FUSION)])
def test_a_run_moves_the_weights_of_its_stage_alone(
    dataset: Path, tmp_path: Path, share: float, moved: set[str]
) -> None:
    done = farvox(*_train(dataset, tmp_path / "run", share))
    assert done.returncode == 0, done.stderr
    assert _moved(tmp_path / "run") == moved


def test_resumed_in_either_stage_gives_the_same_weights_to_the_bit(dataset: Path, tmp_path: Path) -> None:
    done = farvox(*_train(dataset, tmp_path / "whole", 0.5))
    assert done.returncode == 0, done.stderr
    log = tmp_path / "parts" / "fold-0" / "log.jsonl"
    for epochs in (1, EPOCHS // 2 + 1):
        process = start_farvox(*_train(dataset, tmp_path / "parts", 0.5, "--resume"))
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if log.exists() and log.read_text(encoding="utf-8").count('"event":"epoch"') >= epochs:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = farvox(*_train(dataset, tmp_path / "parts", 0.5, "--resume"))
    assert done.returncode == 0, done.stderr
    wanted = _weights(tmp_path / "whole")
    for key, value in _weights(tmp_path / "parts").items():
        np.testing.assert_array_equal(value, wanted[key], err_msg=key)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_two_processes_leave_alone_what_rests(dataset: Path, tmp_path: Path, share: float) -> None:
    done = farvox(
        *_train(dataset, tmp_path / "run", share, "--device", "cpu", "--devices", "2", "--set", "train.batch=1"),
        *("--set", "train.weight_decay=0.1"),  # would move weights whose gradient is zero rather than missing
    )
    assert done.returncode == 0, done.stderr
    events = [
        json.loads(line)
        for line in (tmp_path / "run" / "fold-0" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert events[-1]["step"] == 2 * EPOCHS
    assert _moved(tmp_path / "run") == ({"views"} if share == 1 else {"views", *FUSION})
