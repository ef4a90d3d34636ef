"""Find the reference of each prediction by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from farvox.errors import DataError

Pair = tuple[str, Path, Path]
"""Case id, prediction, reference."""

_REFERENCE_SUFFIXES = ("_segmentation", "_seg")


def find_pairs(predictions: Path, references: Path) -> tuple[list[Pair], list[str]]:
    """The pairs of predictions and references, sorted by case, and notes on unused references.

    Args:
        predictions: A folder of masks, or one mask.
        references: A folder of masks, or one mask.

    Raises:
        DataError: A path that does not exist or contains no masks, two files of one case, no common case, or a
            prediction without a reference.
    """
    predicted, available = _masks(predictions), _masks(references)
    if predictions.is_file() and references.is_file():
        return [(next(iter(predicted)), predictions, references)], []
    names = {case: _reference_name(case, available) for case in predicted}
    missing = sorted(case for case, name in names.items() if name is None)
    if len(missing) == len(names):
        raise DataError(
            f"no prediction in {predictions} has a reference in {references} "
            f"(predictions: {_abbreviate(sorted(predicted))}; references: {_abbreviate(sorted(available))})",
            allowed="the same file names in both folders; formats may differ",
        )
    if missing:
        raise DataError(
            f"no reference in {references} for the prediction {predicted[missing[0]][0].name}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            allowed="a reference of the same name for every prediction",
            hint="add the reference or remove the prediction from the folder",
            case=missing[0],
        )
    pairs: list[Pair] = []
    for case, name in sorted(names.items()):
        pairs.append((case, _single_file(predicted[case], case), _single_file(available[str(name)], case)))
    used = {_strip_suffix(str(name)) for name in names.values()}
    unused = sorted(name for name in available if _strip_suffix(name) not in used)
    return pairs, [f"{len(unused)} reference(s) without prediction: {_abbreviate(unused)}"] if unused else []


def find_references(cases: Sequence[str], references: Path) -> dict[str, Path | None]:
    """The reference mask of each case, or None. A single file is the reference of a single case.

    Raises:
        DataError: A path that does not exist or contains no masks, or two files of one case.
    """
    available = _masks(references)
    if references.is_file() and len(cases) == 1:
        return {cases[0]: references}
    names = {case: _reference_name(case, available) for case in cases}
    return {case: None if name is None else _single_file(available[name], case) for case, name in names.items()}


def _single_file(files: list[Path], case: str) -> Path:
    if len(files) > 1:
        raise DataError(
            f"several files of one name: {', '.join(path.name for path in files)} in {files[0].parent}",
            hint="keep only one of them in the folder",
            case=case,
        )
    return files[0]


def _masks(path: Path) -> dict[str, list[Path]]:
    from farvox.io import case_id_from_path, is_scan

    if not path.exists():
        raise DataError(f"{path} does not exist", allowed="a mask or a folder of masks")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    masks: dict[str, list[Path]] = {}
    for file in files:
        if is_scan(file) and not file.name.startswith("."):
            masks.setdefault(case_id_from_path(file), []).append(file)
    if not masks:
        raise DataError(f"{path} contains no masks", allowed="a mask or a folder of masks, such as .nii.gz or .mha")
    return masks


def _reference_name(case: str, available: dict[str, list[Path]]) -> str | None:
    """Names with a suffix are tried first: one without may be the scan, if scans and references share a folder."""
    stems = dict.fromkeys((case, _strip_suffix(case)))
    names = (stem + suffix for stem in stems for suffix in (*_REFERENCE_SUFFIXES, ""))
    return next((name for name in names if name in available), None)


def _strip_suffix(name: str) -> str:
    return re.sub(rf"(_0000|{'|'.join(_REFERENCE_SUFFIXES)})$", "", name)


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
