"""Small scans and labels on disk for the tests of files, readers and checks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from farvox.types import Array, FloatArray


def oblique(
    spacing: tuple[float, float, float] = (0.7, 1.3, 4.5), origin: tuple[float, ...] = (-31, 12, 77)
) -> FloatArray:
    """Affine of a scan turned about all three axes, one of them flipped."""
    a, b, c = 0.3, -0.2, 0.5
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = x @ y @ z @ np.diag([-1, 1, 1]) * spacing
    affine[:3, 3] = origin
    return affine


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    """int16 values without any symmetry."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def blob(shape: tuple[int, int, int], *values: int) -> Array:
    """uint8 label map: a slab of each value, background around."""
    label = np.zeros(shape, dtype=np.uint8)
    for index, value in enumerate(values):
        label[index + 1, 1:-1, 1:-1] = value
    return label


def save(path: Path, array: Array, affine: FloatArray | None = None) -> Path:
    """Write a NIfTI file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def write_json(path: Path, content: object) -> Path:
    """Write JSON and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def msd(root: Path, cases: dict[str, tuple[Array | None, Array | None]], **fields: object) -> Path:
    """MSD folder with the given (image, label) arrays; None leaves the file out but keeps it listed."""
    for id, (image, label) in cases.items():
        if image is not None:
            save(root / "imagesTr" / f"{id}.nii.gz", image)
        if label is not None:
            save(root / "labelsTr" / f"{id}.nii.gz", label)
    listed = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in cases]
    content = {
        "name": "Made",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": listed,
        **fields,
    }
    write_json(root / "dataset.json", content)
    return root
