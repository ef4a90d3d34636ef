"""Bad input on the command line: one clear line, the right exit code, nothing half-written, no stack trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.training.runs import QUICK, farvox, make_dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("sound") / "boxes")


@pytest.fixture
def dataset(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "boxes"))


def _save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(data, np.diag([-1.5, 1.5, 2, 1]) if affine is None else affine), path)


def _image(folder: Path) -> Path:
    return folder / "imagesTr" / "case_1.nii.gz"


def _label(folder: Path) -> Path:
    return folder / "labelsTr" / "case_1.nii.gz"


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).copy()


def _relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    _save(_label(folder), change(_voxels(_label(folder))))


SHAPE = (20, 18, 16)
BAD_CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: _image(f).write_bytes(_image(f).read_bytes()[:2000]), "cut short"),
    "empty file": (lambda f: _image(f).write_bytes(b""), "empty"),
    "text": (lambda f: _image(f).write_text("hello", encoding="utf-8"), "case_1"),
    "NaN": (lambda f: _save(_image(f), np.where(_voxels(_image(f)) > 150, np.nan, 1.0)), "NaN"),
    "constant": (lambda f: _save(_image(f), np.full(SHAPE, 7, np.int16)), "constant"),
    "label shape": (lambda f: _save(_label(f), np.ones((9, 9, 9), np.uint8)), "shape 9×9×9 against 20×18×16"),
    "label affine": (lambda f: _save(_label(f), _voxels(_label(f)), np.eye(4)), "affine differs"),
    "label value": (lambda f: _relabel(f, lambda v: np.where(v == 3, 4, v).astype(np.uint8)), "value(s) 4"),
    "label fraction": (lambda f: _relabel(f, lambda v: (v * 0.5).astype(np.float32)), "fractional"),
    "label negative": (lambda f: _relabel(f, lambda v: -v.astype(np.int16)), "-7"),
    "label empty": (lambda f: _relabel(f, lambda v: v * 0), "empty"),
    "2D": (lambda f: _save(_image(f), np.ones((20, 18), np.int16)), "2"),
    "4D": (
        lambda f: _save(_image(f), np.random.default_rng(0).integers(0, 9, (*SHAPE, 2)).astype(np.int16)),
        "2 channels",
    ),
    "image gone": (lambda f: _image(f).unlink(), "no image file"),
    "label gone": (lambda f: _label(f).unlink(), "no label file"),
}


@pytest.mark.parametrize("name", BAD_CASES)
def test_a_bad_case_stops_training_before_it_starts(dataset: Path, tmp_path: Path, name: str) -> None:
    damage, word = BAD_CASES[name]
    damage(dataset)
    done = farvox("train", dataset, "--out", tmp_path / "run", "--epochs", "1", *QUICK)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 4 cases cannot be used (case case_1: ")
    assert word in last
    assert "--skip-bad" in last
    assert not (tmp_path / "run").exists()
    checked = farvox("check", dataset, "--json")
    assert checked.returncode == 1
    report = json.loads(checked.stdout)
    assert [case["id"] for case in report["cases"] if case["error"]] == ["case_1"]
    assert word in next(case["error"] for case in report["cases"] if case["error"])


def test_skip_bad_leaves_it_out_and_says_so(dataset: Path, tmp_path: Path) -> None:
    _image(dataset).write_bytes(b"")
    done = farvox("train", dataset, "--out", tmp_path / "run", "--fold", "0", "--epochs", "1", "--skip-bad", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "left out: case case_1" in done.stderr
    split = json.loads((tmp_path / "run" / "fold-0" / "split.json").read_text(encoding="utf-8"))
    assert "case_1" not in split["training_cases"] + split["validation_cases"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--set", "train.bach=2"], 2, "did you mean 'batch'"),
        (["--set", "model.name=unet9d"], 2, "unet9d"),
        (["--set", "model.options={widht=[4]}"], 2, "widht"),
        (["--recipe", "nonsense"], 2, "no recipe 'nonsense'"),
        (["--budget", "0m"], 2, "budget '0m'"),
        (["--budget", "8"], 2, "budget '8'"),
        (["--epochs", "0"], 2, "0 epochs"),
        (["--epochs", "1", "--budget", "1m"], 2, "both"),
        (["--device", "cuda:7"], 1, "device 'cuda:7' is not there"),
        (["--fold", "9"], 2, "fold 9"),
        (["--folds", "1"], 2, "--all-cases"),
        (["--all-cases", "--fold", "0"], 2, "one of them"),
        (["--fold"], 2, "--fold"),
        (["--colour", "red"], 2, "--colour"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    sound: Path, tmp_path: Path, arguments: list[str], code: int, word: str
) -> None:
    length = [] if {"--budget", "--epochs"} & set(arguments) else ["--epochs", "1"]
    done = farvox("train", sound, "--out", tmp_path / "run", *length, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert not list(tmp_path.glob("run/fold-*/*"))


def test_one_case_only(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "one", cases=1)
    done = farvox("train", dataset, "--out", tmp_path / "run", "--epochs", "1", *QUICK)
    assert done.returncode == 1
    assert "at least two" in done.stderr
    assert "--all-cases" in done.stderr


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        done = farvox("check", folder)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert farvox("check").returncode == 2
    assert farvox("check", tmp_path, "--images", "*.nii").returncode == 2


def test_predict_and_evaluate_refuse_what_they_cannot_use(sound: Path, tmp_path: Path) -> None:
    scan = sound / "imagesTr" / "case_0.nii.gz"
    done = farvox("predict", tmp_path, scan, "--out", tmp_path / "out")
    assert (done.returncode, "has no weights" in done.stderr) == (1, True)
    assert farvox("predict", tmp_path, "--out", tmp_path / "out").returncode == 2
    done = farvox("predict", tmp_path, scan, "--out", tmp_path / "out", "--max-memory", "lots")
    assert (done.returncode, "800M or 2G" in done.stderr) == (2, True)
    done = farvox("evaluate", tmp_path / "none", sound / "labelsTr", "--out", tmp_path / "m.json")
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "m.json").exists()


def test_a_label_that_no_case_has(dataset: Path, tmp_path: Path) -> None:
    document = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    document["labels"]["9"] = "spleen"
    (dataset / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    done = farvox("train", dataset, "--out", tmp_path / "run", "--epochs", "1", *QUICK)
    assert done.returncode == 1
    assert "label 9 (spleen) occurs in no case" in done.stderr
