"""Which files belong to a scan, and what a prediction of a scan returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farvox.data import CasePaths
from farvox.errors import DataError, FarvoxError
from farvox.io import case_id_from_path, count_channels, is_scan, mask_name
from farvox.io.names import mask_suffix


@dataclass(frozen=True)
class Prediction:
    """The result for one scan: a mask, or an error in one line.

    Args:
        case: Id of the scan.
        mask: Path of the mask; None after an error.
        error: The error; None otherwise.
        seconds: Time for reading, segmentation and writing.
        volumes_ml: Label name → volume in the mask, ml.
        n_evaluated_fraction: With point_stride="adaptive", evaluated points as a fraction of the voxels; else None.
        notes: What was assumed or is unusual about the scan's files, one line each.
    """

    case: str
    mask: Path | None
    error: str | None
    seconds: float
    volumes_ml: dict[str, float]
    n_evaluated_fraction: float | None = None
    notes: tuple[str, ...] = ()


def find_scans(paths: Sequence[Path], channels: Sequence[str]) -> list[CasePaths]:
    """Find the scans in files, DICOM folders and folders of scans.

    With several channels, the files `<scan>_0000`, `<scan>_0001`, … or `<scan>_<channel name>` (or with a hyphen)
    belong together; a single file can contain all channels, too.

    Raises:
        DataError: A path that is not a scan, or two scans whose masks would have the same name. A missing channel
            raises an error only when its scan is read.
    """
    files = [file for path in paths for file in _expand(path)]
    scans = _group(files, channels) if len(channels) > 1 else [CasePaths(case_id_from_path(f), (f,)) for f in files]
    by_mask: dict[str, CasePaths] = {}
    for scan in scans:
        if other := by_mask.get(mask_file(scan)):
            raise DataError(
                f"{other.images[0]} and {scan.images[0]} would write the same mask",
                allowed="one scan per name",
                hint="predict them into two folders",
                case=scan.id,
            )
        by_mask[mask_file(scan)] = scan
    return scans


def _expand(path: Path) -> list[Path]:
    if is_scan(path):
        return [path]
    if path.is_dir():
        scans = [entry for entry in sorted(path.iterdir()) if is_scan(entry)]
        if scans:
            return scans
        raise DataError(f"no scan in folder {path}", allowed="a DICOM series, or scans in a known format")
    if not path.exists():
        raise DataError(f"no file {path}", hint="check the path")
    raise DataError(f"{path} is not a scan", allowed=".nii, .nii.gz, .mha, .mhd, .nrrd or a DICOM folder")


def _group(files: Sequence[Path], channels: Sequence[str]) -> list[CasePaths]:
    endings = [{f"{index:04d}", name.lower().replace(" ", "")} for index, name in enumerate(channels)]
    groups: dict[str, dict[int, Path]] = {}
    scans = []
    for file in files:
        stem = case_id_from_path(file)
        cut = max(stem.rfind("_"), stem.rfind("-"))
        ending = stem[cut + 1 :].lower()
        index = next((n for n, names in enumerate(endings) if ending in names), None)
        if cut < 0 or index is None or _has_all_channels(file, channels):
            scans.append(CasePaths(stem, (file,)))
        else:
            groups.setdefault(stem[:cut], {})[index] = file
    for name, by_channel in groups.items():
        first = next(iter(by_channel.values()))
        expected = [first.with_name(f"{name}_{index:04d}{mask_suffix(first)}") for index in range(len(channels))]
        scans.append(CasePaths(name, tuple(by_channel.get(index, expected[index]) for index in range(len(channels)))))
    return scans


def _has_all_channels(path: Path, channels: Sequence[str]) -> bool:
    try:
        return count_channels(path) == len(channels)
    except FarvoxError:  # reported when the scan is read
        return False


def mask_file(scan: CasePaths) -> str:
    """Name of the mask of a scan."""
    return mask_name(scan.images[0]) if len(scan.images) == 1 else scan.id + mask_suffix(scan.images[0])
