"""A tiny dataset on disk and the real program on it, as a person would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.warm import run_warm

FARVOX = [sys.executable, "-m", "farvox"]
QUICK = [
    *("--set", "model.options={widths=[4, 8]}"),
    *("--set", "patch.size=[16, 16, 16]"),
    *("--set", "train.checkpoint_seconds=0"),
]


def make_dataset(folder: Path, cases: int = 4, shape: tuple[int, int, int] = (20, 18, 16)) -> Path:
    """An MSD folder of noisy scans with a bright box (label 3) and a dark one (label 7)."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    training = []
    for number in range(cases):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        i, j, k = rng.integers(2, 5, 3)
        label[i : i + 7, j : j + 6, k : k + 6], label[i + 8 : i + 13, j : j + 8, k : k + 8] = 3, 7
        image = 100 + 60.0 * (label == 3) - 60.0 * (label == 7) + rng.normal(0, 10, shape)
        affine = np.diag([-1.5, 1.5, 2, 1])
        for part, data in (("images", image.astype(np.int16)), ("labels", label)):
            nib.save(nib.Nifti1Image(data, affine), folder / f"{part}Tr" / f"case_{number}.nii.gz")
        training.append({"image": f"./imagesTr/case_{number}.nii.gz", "label": f"./labelsTr/case_{number}.nii.gz"})
    document = {
        "name": "Boxes",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "3": "bright", "7": "dark"},
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def farvox(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    words = list(map(str, arguments))
    # With several devices each further process starts the program as the first was started.
    if "--devices" in words or not hasattr(os, "fork"):
        command = [*FARVOX, *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env=_environment(), timeout=300, check=False
        )
    return run_warm(words, _environment(), cwd, timeout=300)


def start_farvox(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start the program and leave it running."""
    return subprocess.Popen(
        [*FARVOX, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}
