"""A dataset on which a network learns something within seconds: a sphere and a cuboid in noise."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

LABELS = {"0": "background", "1": "liver", "2": "spleen"}


def write_tiny_dataset(folder: Path, cases: int = 6) -> Path:
    """Write `case_0`, `case_1`, ... (32×34×20 voxels of 2×2×3 mm) in the layout of the MSD, and return the folder."""
    names = [f"case_{number}" for number in range(cases)]
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-30, -35, 40)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        i, j, k = np.indices((32, 34, 20))
        ci, cj, ck = rng.uniform(10, 14, 3)
        label = (((i - ci) ** 2 + (j - cj) ** 2 + (1.5 * (k - ck)) ** 2) < 45).astype(np.uint8)
        label[20:28, 20:29, 6:15] = 2
        image = (rng.normal(0, 8, label.shape) + np.array([0, 100, 200])[label]).astype(np.float32)
        for part, array in (("imagesTr", image), ("labelsTr", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), folder / part / f"{name}.nii.gz")
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in names]
    description = {"name": "Shapes", "modality": {"0": "MRI"}, "labels": LABELS, "training": training, "test": []}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder
