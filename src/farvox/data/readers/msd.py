"""Medical Segmentation Decathlon layout: dataset.json, imagesTr, labelsTr, imagesTs; channels on a fourth axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from farvox.data.dataset import CasePaths, Dataset
from farvox.data.readers._json import channel_names, label_table, list_scans, read_json_object
from farvox.errors import DataError
from farvox.io import case_id_from_path


def matches(root: Path) -> bool:
    """Whether the folder has a dataset.json."""
    return (root / "dataset.json").is_file()


def read(root: Path) -> Dataset:
    """Cases listed under "training" and "test", or, where nothing is listed, those in the folders."""
    source = root / "dataset.json"
    content = read_json_object(source)
    labels = label_table(content.get("labels"), source)
    channels = channel_names(content.get("modality", {"0": "image"}), source)
    if content.get("training"):
        cases = tuple(_entry(root, entry) for entry in content["training"])
    else:
        masks = list_scans(root / "labelsTr")
        cases = tuple(CasePaths(id, (path,), masks.get(id)) for id, path in list_scans(root / "imagesTr").items())
    if content.get("test"):
        unlabelled = tuple(CasePaths(case.id, case.images) for case in (_entry(root, one) for one in content["test"]))
    else:
        unlabelled = tuple(CasePaths(id, (path,)) for id, path in list_scans(root / "imagesTs").items())
    if not cases and not unlabelled:
        raise DataError(f"{source} lists no case and imagesTr holds none", hint='list the files under "training"')
    return Dataset(
        name=str(content.get("name") or root.resolve().name),
        root=root,
        cases=cases,
        channels=channels,
        labels=labels,
        licence=str(content.get("licence", content.get("license", ""))),
        layout="msd",
        notes=_unlisted_scans(root, cases),
        unlabelled=unlabelled,
    )


def _entry(root: Path, entry: Any) -> CasePaths:
    """A {"image": ..., "label": ...} pair, or only the image's name, its label being of the same name."""
    if isinstance(entry, str):
        image, label = root / entry, root / "labelsTr" / Path(entry).name
        return CasePaths(case_id_from_path(image), (image,), label)
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DataError(f"dataset.json lists {entry!r}", allowed='{"image": "./imagesTr/a.nii.gz", "label": ...}')
    image = root / entry["image"]
    return CasePaths(case_id_from_path(image), (image,), root / entry["label"] if entry.get("label") else None)


def _unlisted_scans(root: Path, cases: tuple[CasePaths, ...]) -> tuple[str, ...]:
    left = sorted(list_scans(root / "imagesTr").keys() - {case.id for case in cases})
    if not left:
        return ()
    return (f"{len(left)} scan(s) in imagesTr are not listed in dataset.json and left out, such as {left[0]}",)
