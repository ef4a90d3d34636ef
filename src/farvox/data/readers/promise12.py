"""PROMISE12 layout: CaseNN.mhd with CaseNN_segmentation.mhd; test cases have no segmentation."""

from __future__ import annotations

import re
from pathlib import Path

from farvox.data.dataset import CasePaths, Dataset
from farvox.labels import LabelTable

_CASE = re.compile(r"Case\d+")


def matches(root: Path) -> bool:
    """Whether the folder, or one in it, holds a CaseNN.mhd."""
    return bool(_images(root))


def read(root: Path) -> Dataset:
    """Cases with a segmentation, and those without as unlabelled."""
    pairs = [(image, image.with_name(f"{image.stem}_segmentation.mhd")) for image in _images(root)]
    return Dataset(
        name=root.resolve().name,
        root=root,
        cases=tuple(CasePaths(image.stem, (image,), label) for image, label in pairs if label.exists()),
        channels=("T2",),
        labels=LabelTable.from_mapping({1: "prostate"}),
        layout="promise12",
        unlabelled=tuple(CasePaths(image.stem, (image,)) for image, label in pairs if not label.exists()),
    )


def _images(root: Path) -> list[Path]:
    paths = [*root.glob("Case*.mhd"), *root.glob("*/Case*.mhd")]
    return sorted((path for path in paths if _CASE.fullmatch(path.stem)), key=lambda path: (path.stem, path))
