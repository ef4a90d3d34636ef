"""BraTS layout: a folder a case with four MR contrasts and a segmentation, file names of 2018 to 2021 or of 2023."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from farvox.data.dataset import CasePaths, Dataset
from farvox.errors import DataError
from farvox.io import case_id_from_path, is_scan
from farvox.labels import LabelTable

_CHANNELS = ("FLAIR", "T1", "T1c", "T2")
_STYLES = {
    "_": (("flair", "t1", "t1ce", "t2"), {1: "necrosis and non-enhancing tumour", 2: "oedema", 4: "enhancing tumour"}),
    "-": (("t2f", "t1n", "t1c", "t2w"), {1: "necrosis and non-enhancing tumour", 2: "oedema", 3: "enhancing tumour"}),
}
"""Separator before the contrast in file names → contrasts in the order of `_CHANNELS`, and label names."""


def matches(root: Path) -> bool:
    """Whether some folder at most two levels down holds two contrasts of one style or more."""
    return any(True for _ in _case_folders(root))


def read(root: Path) -> Dataset:
    """One case a folder; without any segmentation (the validation sets) all cases count as unlabelled."""
    folders = list(_case_folders(root))
    styles = {style for _, style in folders}
    if len(styles) > 1:
        raise DataError(f"{root} mixes file names of BraTS 2018-2021 and 2023", hint="give one release at a time")
    style = styles.pop()
    contrasts, names = _STYLES[style]
    cases = []
    for folder, _ in folders:
        files = {
            case_id_from_path(path).rsplit(style, 1)[-1]: path for path in sorted(folder.iterdir()) if is_scan(path)
        }
        images = tuple(files.get(name, folder / f"{folder.name}{style}{name}.nii.gz") for name in contrasts)
        cases.append(CasePaths(folder.name, images, files.get("seg")))
    labelled = any(case.label for case in cases)
    return Dataset(
        name=root.resolve().name,
        root=root,
        cases=tuple(cases) if labelled else (),
        channels=_CHANNELS,
        labels=LabelTable.from_mapping(names),
        layout="brats",
        unlabelled=() if labelled else tuple(cases),
    )


def _case_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """(folder, separator) of every case folder, sorted."""
    for folder in sorted(path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir()):
        names = [case_id_from_path(path) for path in folder.iterdir() if is_scan(path)]
        for style, (contrasts, _) in _STYLES.items():
            ending = re.compile(rf".*{style}({'|'.join(contrasts)})")
            if sum(bool(ending.fullmatch(name)) for name in names) >= 2:
                yield folder, style
