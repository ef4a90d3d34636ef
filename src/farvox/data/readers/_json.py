"""dataset.json and labels.json: what MSD, nnU-Net and pattern datasets have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farvox.errors import DataError
from farvox.io import case_id_from_path, is_scan
from farvox.labels import LabelTable


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}", hint="correct it in a text editor") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}", allowed="a JSON object {...}")
    return content


def parse_labels(content: Any, path: Path) -> tuple[dict[int, str], int | None]:
    """(value → name, ignore value or None) from {"1": "liver"} or {"liver": 1}; the name "ignore" is set apart."""
    names: dict[int, str] = {}
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path.name} has no labels", allowed='"labels": {"0": "background", "1": "liver", ...}')
    for key, other in content.items():
        value, name = (key, other) if isinstance(other, str) else (other, key)
        if isinstance(value, list):
            raise DataError(
                f"{path.name}: label '{name}' is a region of several values {value}",
                allowed="one value a label",
                hint="give each value its own name; regions may overlap and are not supported",
            )
        try:
            number = int(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path.name}: label '{name}' has value {value!r}", allowed="a whole number") from error
        if number in names:
            raise DataError(f"{path.name}: '{names[number]}' and '{name}' have the same value {number}")
        names[number] = name
    ignore = next((value for value, name in names.items() if name.lower() == "ignore"), None)
    return names, ignore


def label_table(content: Any, path: Path) -> LabelTable:
    """The label table from a mapping as in `parse_labels`."""
    return LabelTable.from_mapping(*parse_labels(content, path))


def channel_names(content: Any, path: Path) -> tuple[str, ...]:
    """Channel names in order from {"0": "FLAIR", "1": "T1"}."""
    if not isinstance(content, Mapping) or sorted(content) != sorted(map(str, range(len(content)))) or not content:
        raise DataError(f"{path.name}: channels {content!r}", allowed='numbered from 0, {"0": "FLAIR", "1": "T1", ...}')
    return tuple(str(content[str(index)]) for index in range(len(content)))


def list_scans(folder: Path) -> dict[str, Path]:
    """Name without suffix → path of the scans in a folder, sorted; empty where there is no folder.

    Raises:
        DataError: Two files differ in their suffix alone.
    """
    scans: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not is_scan(path):
            continue
        stem = case_id_from_path(path)
        if stem in scans:
            raise DataError(
                f"{scans[stem].name} and {path.name} in {folder} are two cases of one name",
                allowed="one file a name",
                hint="rename or remove one of them",
                case=stem,
            )
        scans[stem] = path
    return scans
