"""A folder of phantoms in the Medical Segmentation Decathlon's layout, so that the demo reads it like any dataset."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from farvox.errors import UsageError
from farvox.geometry import Grid
from farvox.synthetic.anatomy import PHANTOM_LABELS
from farvox.synthetic.scan import phantom_case
from farvox.types import Array


def write_phantoms(folder: Path, *, training: int, testing: int, seed: int = 0) -> Path:
    """Write phantoms as `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs` and `dataset.json`.

    The same arguments give the same files, byte for byte; the first cases stay the same when more are requested.
    Files of the same name are overwritten.

    Args:
        folder: Where to write; made when missing.
        training: Number of labelled cases to learn from, at least 1.
        testing: Number of test cases; their labels are in `labelsTs`, which `dataset.json` does not list.
        seed: Which set, 0 or larger; sets of different seeds have no case in common.

    Returns:
        The folder.

    Raises:
        UsageError: A count or the seed is too small.
    """
    for name, number, least in (("training", training, 1), ("testing", testing, 0), ("seed", seed, 0)):
        if number < least:
            raise UsageError(f"{name} {number} for the phantoms", allowed=f"{least} or larger")
    folder = Path(folder)
    names = {
        "Tr": [f"phantom_{n + 1:03d}" for n in range(training)],
        "Ts": [f"test_{n + 1:03d}" for n in range(testing)],
    }
    for part, (split, cases) in enumerate(names.items()):
        (folder / f"images{split}").mkdir(parents=True, exist_ok=True)
        (folder / f"labels{split}").mkdir(exist_ok=True)
        for number, name in enumerate(cases):
            image, label, grid = phantom_case(_case_seed(seed, part, number))
            _save(image, grid, folder / f"images{split}" / f"{name}.nii.gz")
            _save(label, grid, folder / f"labels{split}" / f"{name}.nii.gz")

    description = {
        "name": "Phantom",
        "description": "Computed CT-like abdomens; no patient data",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": dict(zip(map(str, PHANTOM_LABELS.values), PHANTOM_LABELS.names, strict=True)),
        "numTraining": training,
        "numTest": testing,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names["Tr"]
        ],
        "test": [f"./imagesTs/{name}.nii.gz" for name in names["Ts"]],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


def _case_seed(seed: int, part: int, number: int) -> int:
    """Seed of one case; independent of the number of cases."""
    return int(np.random.SeedSequence([seed, part, number]).generate_state(1, np.uint64)[0])


def _save(array: Array, grid: Grid, path: Path) -> None:
    file = nib.Nifti1Image(array, grid.affine)
    file.header.set_xyzt_units("mm")
    nib.save(file, path)
