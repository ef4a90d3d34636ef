"""Any folder structure, by two patterns: image and label belong together if their '*' match the same text."""

from __future__ import annotations

import glob
import re
from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np

from farvox.data.dataset import CasePaths, Dataset
from farvox.data.readers._json import parse_labels, read_json_object
from farvox.errors import DataError, UsageError
from farvox.io import case_id_from_path, count_channels, is_scan, read_label
from farvox.labels import LabelTable

_WILD = re.compile(r"\*\*/|\*|\?")
_CAPTURE = {"**/": "(?:(.*)/)?", "*": "([^/]*)", "?": "([^/])"}


def read(root: Path | None, images: str | None, labels: str | None) -> Dataset:
    """Pair the files of two patterns, relative to `root` or to the working directory.

    Names of the labels come from labels.json files next to the labels or in `root` ({"1": "liver"}); without any, from
    the values in all label files. Images without label and labels without image become cases that fail to load.
    """
    if images is None or labels is None:
        raise UsageError("only one of images and labels", hint="give both patterns, each in quotes")
    if len(_WILD.findall(images)) != len(_WILD.findall(labels)):
        raise UsageError(
            f"'{images}' and '{labels}' have {len(_WILD.findall(images))} and {len(_WILD.findall(labels))} wildcards",
            allowed="the same number, so that images and labels can be paired",
        )
    base = root if root is not None else Path()
    label_paths = _matches(base, labels)
    label_files = {path for _, path in label_paths}
    image_paths = _scans(base, images, label_files)
    label_of = dict(label_paths)
    cases = [CasePaths(_id(key, path), (path,), label_of.pop(key, None)) for key, path in image_paths]
    cases += [CasePaths(_id(key, path), (), path) for key, path in label_of.items()]
    table, notes = _table(base, [path for _, path in label_paths])
    return Dataset(
        name=base.resolve().name,
        root=base,
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        channels=_channels(path for _, path in image_paths),
        labels=table,
        layout="pattern",
        notes=notes,
    )


def read_unlabelled(root: Path | None, images: str) -> Dataset:
    """Scans of one pattern, to which landmarks are about to be added; the label table is provisional."""
    base = root if root is not None else Path()
    paths = _scans(base, images)
    return Dataset(
        name=base.resolve().name,
        root=base,
        cases=(),
        channels=_channels(path for _, path in paths),
        labels=LabelTable.from_mapping({1: "landmark"}),
        layout="pattern",
        unlabelled=tuple(sorted((CasePaths(_id(*one), (one[1],)) for one in paths), key=lambda case: case.id)),
    )


def _scans(base: Path, images: str, labels: Container[Path] = ()) -> list[tuple[tuple[str, ...], Path]]:
    """What fits the pattern of images and is no label; at least one."""
    scans = [(key, path) for key, path in _matches(base, images) if path not in labels]
    if not scans:
        raise DataError(f"no scan matches '{images}' in {base.resolve()}", hint="check the pattern; put it in quotes")
    return scans


def _matches(base: Path, pattern: str) -> list[tuple[tuple[str, ...], Path]]:
    """(what the wildcards match, path) of every scan that fits; '[' means itself."""
    pattern = pattern.removeprefix("./")
    full = str(base / pattern)
    parts = _WILD.split(full)
    wild = _WILD.findall(full)
    fits = re.compile("".join(re.escape(a) + b for a, b in zip(parts, [*(_CAPTURE[w] for w in wild), ""], strict=True)))
    n_root = len(wild) - len(_WILD.findall(pattern))
    scans = []
    for name in sorted(glob.glob(full.replace("[", "[[]"), recursive=True)):
        match = fits.fullmatch(name)
        if match and is_scan(Path(name)):
            scans.append((tuple(group or "" for group in match.groups()[n_root:]), Path(name)))
    return scans


def _id(key: tuple[str, ...], path: Path) -> str:
    return "_".join(part.replace("/", "_") for part in key if part) or case_id_from_path(path)


def _channels(paths: Iterable[Path]) -> tuple[str, ...]:
    """Channel names, by the first image whose header can be read."""
    for path in paths:
        try:
            count = count_channels(path)
        except DataError:
            continue
        return ("image",) if count == 1 else tuple(f"channel {index}" for index in range(count))
    return ("image",)


def _table(base: Path, labels: list[Path]) -> tuple[LabelTable, tuple[str, ...]]:
    sources = sorted({file for path in labels for file in (path.parent / "labels.json",) if file.is_file()})
    if not sources and (base / "labels.json").is_file():
        sources = [base / "labels.json"]
    if sources:
        return _named(sources), (f"label names from {', '.join(map(str, sources))}",)
    values: set[int] = set()
    for path in labels:
        try:
            present = np.unique(read_label(path)[0])
        except DataError:
            continue
        values |= {int(value) for value in present if np.isfinite(value) and value == round(value) and value > 0}
    if not values:
        raise DataError(
            "no label file with a value other than 0", hint="check the --labels pattern, or write a labels.json"
        )
    return LabelTable.from_mapping({value: f"label {value}" for value in values}), (
        "label table from the values found",
    )


def _named(sources: list[Path]) -> LabelTable:
    merged: dict[int, str] = {}
    ignored: int | None = None
    for source in sources:
        names, ignore = parse_labels(read_json_object(source), source)
        ignored = ignore if ignore is not None else ignored
        for value, name in names.items():
            if merged.setdefault(value, name) != name:
                raise DataError(
                    f"label value {value} is '{merged[value]}' in one labels.json and '{name}' in {source}",
                    allowed="one meaning a value",
                    hint="give patterns that match one kind of case, or correct the names",
                )
    return LabelTable.from_mapping(merged, ignored)
