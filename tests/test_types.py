"""Types as a user sees them: a script of the public functions passes a strict type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SCRIPT = """
import farvox

dataset = farvox.read_dataset("data")
run = farvox.train(dataset, budget="20s", folds=2, fold=0)
mask = farvox.Predictor.load(run.path).segment("scan.nii.gz")
reveal_type(dataset)
reveal_type(farvox.check(dataset))
reveal_type(run)
reveal_type(run.metrics)
reveal_type(run.metrics.summary.foreground.dice.mean)
reveal_type(mask)
reveal_type(farvox.evaluate("masks", "references"))
reveal_type(farvox.compare(dataset, ["default"], out="both"))
reveal_type(farvox.locate("bundle", "scan.nii.gz"))
reveal_type(farvox.register("fixed.nii.gz", "moving.nii.gz", "bundle"))
reveal_type(farvox.create_model("unet3d"))
reveal_type(farvox.profile("unet3d"))
reveal_type(farvox.load_recipe())
"""
TYPES = [
    "farvox.data.dataset.Dataset",
    "farvox.data.checks.Check",
    "farvox.runs.run.Run",
    "farvox.evaluation.schema.Metrics",
    "float | None",
    "numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]",
    "farvox.evaluation.schema.Metrics",
    "farvox.runs.schema.Comparison",
    "farvox.localization.api.Landmarks",
    "farvox.registration.api.Registration",
    "torch.nn.modules.module.Module",
    "farvox.profiling.api.Profile",
    "farvox.recipes.schema.Recipe",
]


def mypy(*arguments: str | Path) -> str:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, check=False).stdout


def test_a_users_script_has_exact_types(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    out = mypy(tmp_path / "script.py")
    revealed = [line.partition("Revealed type is ")[2].strip('"') for line in out.splitlines() if "Revealed" in line]
    assert revealed == TYPES
    assert "Success" in out


def test_a_wrong_call_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import farvox\n\nfarvox.train(3, budjet='8m')\n", encoding="utf-8")
    out = mypy(tmp_path / "script.py")
    assert 'Unexpected keyword argument "budjet" for "train"' in out
    assert "Found 2 errors" in out
