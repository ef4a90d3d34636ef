"""A package of somebody else adds a network: installed, trained, saved, and used by a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.tiny import write_tiny_dataset

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_network"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the example."""
    target = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *offline, str(EXAMPLE)], check=True, capture_output=True)
    return target


def python(code: str, packages: Path, cwd: Path) -> str:
    """Run code in a fresh process that has the packages."""
    path = os.pathsep.join([str(packages), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_network_is_listed_trained_and_opened_in_a_fresh_process(installed: Path, tmp_path: Path) -> None:
    write_tiny_dataset(tmp_path / "DATASET")
    listed = python("import farvox; print(*farvox.list_models())", installed, tmp_path)
    assert "own-network" in listed.split()

    train = """
import farvox
dataset = farvox.read_dataset("DATASET")
recipe = farvox.load_recipe("quick", {"model.name": "own-network", "model.options": {"width": 6}})
run = farvox.train(dataset, recipe, epochs=80, folds=3, fold=0, out="RUN", device="cpu")
print(run.metrics.summary.foreground.dice.mean)
"""
    assert float(python(train, installed, tmp_path)) > 0.4

    predict = """
import farvox, numpy
predictor = farvox.Predictor.load("RUN/fold-0/bundle")
print(type(predictor.network).__name__, sum(p.numel() for p in predictor.network.parameters()))
numpy.save("mask.npy", predictor.segment("DATASET/imagesTr/case_0.nii.gz"))
"""
    # 6 · (5³ + 1) values of the first convolution, 3 · (6 + 1) of the second
    assert python(predict, installed, tmp_path).split() == ["Sequential", str(6 * 126 + 3 * 7)]
    mask = np.load(tmp_path / "mask.npy")
    reference = nib.load(tmp_path / "DATASET" / "labelsTr" / "case_0.nii.gz").get_fdata()
    assert mask.shape == reference.shape
    assert (mask[reference == 2] == 2).mean() > 0.5


def test_without_the_package_the_bundle_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    write_tiny_dataset(tmp_path / "DATASET", cases=2)
    train = """
import farvox
dataset = farvox.read_dataset("DATASET")
farvox.train(dataset, "quick", model="own-network", epochs=1, folds=2, fold=0, out="RUN", device="cpu")
"""
    python(train, installed, tmp_path)
    predict = """
import farvox
try:
    farvox.Predictor.load("RUN/fold-0/bundle")
except farvox.FarvoxError as error:
    print(error)
"""
    assert "own-network" in python(predict, tmp_path / "nothing", tmp_path)
