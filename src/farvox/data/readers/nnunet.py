"""nnU-Net raw layout, version 1 and 2: a file a channel (case_0000.nii.gz, case_0001.nii.gz), label without number."""

from __future__ import annotations

import re
from pathlib import Path

from farvox.data.dataset import CasePaths, Dataset
from farvox.data.readers._json import channel_names, label_table, list_scans, read_json_object
from farvox.errors import DataError
from farvox.io import SUFFIXES

_NUMBERED = re.compile(r"(.+)_(\d{4})")


def matches(root: Path) -> bool:
    """Whether dataset.json names channels as version 2 does, or images carry channel numbers that labels lack."""
    source = root / "dataset.json"
    if not source.is_file():
        return False
    if "channel_names" in read_json_object(source):
        return True
    images, labels = list_scans(root / "imagesTr"), list_scans(root / "labelsTr")
    return any((match := _NUMBERED.fullmatch(name)) and match[1] in labels and name not in labels for name in images)


def read(root: Path) -> Dataset:
    """Cases by the files in imagesTr and labelsTr, or by the "dataset" table of version 2."""
    source = root / "dataset.json"
    content = read_json_object(source)
    ending = str(content.get("file_ending", ".nii.gz"))
    if ending not in SUFFIXES:
        raise DataError(f"dataset.json: file_ending '{ending}'", allowed=", ".join(SUFFIXES))
    channels = channel_names(content.get("channel_names", content.get("modality")), source)
    if isinstance(content.get("dataset"), dict):
        cases = tuple(_listed(root, id, entry) for id, entry in content["dataset"].items())
    else:
        labels = list_scans(root / "labelsTr")
        images = _grouped(root / "imagesTr", len(channels), ending)
        cases = tuple(CasePaths(id, images.get(id, ()), labels.get(id)) for id in sorted(images.keys() | labels.keys()))
    tests = _grouped(root / "imagesTs", len(channels), ending)
    if not cases and not tests:
        raise DataError(f"no case in {root / 'imagesTr'}", allowed=f"files such as case_0000{ending}")
    return Dataset(
        name=str(content.get("name") or root.resolve().name),
        root=root,
        cases=cases,
        channels=channels,
        labels=label_table(content.get("labels"), source),
        licence=str(content.get("licence", content.get("license", ""))),
        layout="nnunet",
        unlabelled=tuple(CasePaths(id, files) for id, files in tests.items()),
    )


def _listed(root: Path, id: str, entry: object) -> CasePaths:
    if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
        raise DataError(f"dataset.json lists {entry!r}", allowed='{"images": [...], "label": ...}', case=id)
    label = root / entry["label"] if entry.get("label") else None
    return CasePaths(id, tuple(root / image for image in entry["images"]), label)


def _grouped(folder: Path, channels: int, ending: str) -> dict[str, tuple[Path, ...]]:
    """Case → channel files in order; a missing channel keeps its index, so that loading can name it."""
    channel_files: dict[str, dict[int, Path]] = {}
    for name, path in list_scans(folder).items():
        if match := _NUMBERED.fullmatch(name):
            channel_files.setdefault(match[1], {})[int(match[2])] = path
    return {
        id: tuple(files.get(n, folder / f"{id}_{n:04}{ending}") for n in sorted({*range(channels), *files}))
        for id, files in sorted(channel_files.items())
    }
