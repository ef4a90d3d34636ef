"""From paths on a command line to masks in a folder: which files make a scan, and one scan after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from farvox.data import CasePaths, Dataset
from farvox.data.load import load_image, require_intensities
from farvox.errors import DataError, FarvoxError
from farvox.io import case_id_from_path, count_channels, is_scan, mask_name, write_mask
from farvox.io.scan import Scan
from farvox.prediction.predictor import Predictor


@dataclass(frozen=True)
class Prediction:
    """What became of one scan: a mask, or an error in one line."""

    case: str
    mask: Path | None
    error: str | None
    seconds: float
    volumes_ml: dict[str, float]
    """Volume of each label in the mask, by name, ml."""
    asked: float | None = None
    """With adaptive sampling, how often the networks were asked, as a share of the voxels of network space."""


def find_scans(paths: Sequence[Path], channels: Sequence[str]) -> list[CasePaths]:
    """Scans among files, DICOM folders and folders of scans.

    Where the network wants several channels, files `<scan>_0000`, `<scan>_0001`, … or `<scan>_<channel name>` (or with
    a hyphen) belong together; a single file may hold all channels as well.

    Raises:
        DataError: A path that is not a scan, two scans whose masks would have one name. A missing channel is an error
            of its scan alone, when it is read.
    """
    files = [file for path in paths for file in _expand(path)]
    scans = _group(files, channels) if len(channels) > 1 else [CasePaths(case_id_from_path(f), (f,)) for f in files]
    seen: dict[str, CasePaths] = {}
    for scan in scans:
        if other := seen.get(_mask_file(scan)):
            raise DataError(
                f"{other.images[0]} and {scan.images[0]} would write the same mask",
                allowed="one scan a name",
                hint="predict them into two folders",
                case=scan.id,
            )
        seen[_mask_file(scan)] = scan
    return scans


def predict_scans(
    predictor: Predictor,
    scans: Sequence[CasePaths],
    out: Path,
    *,
    max_memory: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[Prediction]:
    """Segment scans one after the other and write each mask under its scan's name; a bad scan does not stop the rest.

    Args:
        predictor: The networks.
        scans: As from `find_scans`.
        out: Folder for the masks; made where it is missing.
        max_memory: Bytes for the whole process, or None.
        progress: Told (case, finished share).
    """
    for case in scans:
        started = time.monotonic()
        try:
            scan = read_scan_for(predictor, case)
            name = _mask_file(case)
            if (out / name).resolve() == case.images[0].resolve():
                raise DataError("the mask would replace its scan", hint="give --out a folder of its own", case=case.id)
            told = (lambda share, id=case.id: progress(id, share)) if progress else None
            values = predictor.segment(scan, max_memory=max_memory, progress=told)
            write_mask(out / name, values, scan)
            volumes = {
                name: float((values == value).sum()) * scan.grid.voxel_ml
                for _, value, name in predictor.labels.foreground
            }
            asked = predictor.samples.share if predictor.samples else None
            yield Prediction(case.id, out / name, None, time.monotonic() - started, volumes, asked)
        except FarvoxError as error:
            error.case = error.case or case.id
            yield Prediction(case.id, None, str(error), time.monotonic() - started, {})


def read_scan_for(predictor: Predictor, case: CasePaths) -> Scan:
    """A scan with the channels the networks want and intensities they can take.

    Raises:
        DataError: It cannot be read, or is not such a scan.
    """
    described = Dataset("scans", Path(), (case,), predictor.channels, predictor.labels, unlabelled=(case,))
    scan = load_image(described, case)
    require_intensities(described, case, scan.image)
    return scan


def _expand(path: Path) -> list[Path]:
    if is_scan(path):
        return [path]
    if path.is_dir():
        inside = [entry for entry in sorted(path.iterdir()) if is_scan(entry)]
        if inside:
            return inside
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
        index = next((n for n, known in enumerate(endings) if ending in known), None)
        if cut < 0 or index is None or _holds_all(file, channels):
            scans.append(CasePaths(stem, (file,)))
        else:
            groups.setdefault(stem[:cut], {})[index] = file
    for name, found in groups.items():
        some = next(iter(found.values()))
        expected = [some.with_name(f"{name}_{index:04d}{_suffix(some)}") for index in range(len(channels))]
        scans.append(CasePaths(name, tuple(found.get(index, expected[index]) for index in range(len(channels)))))
    return scans


def _holds_all(path: Path, channels: Sequence[str]) -> bool:
    try:
        return count_channels(path) == len(channels)
    except FarvoxError:  # said when the scan's turn comes
        return False


def _mask_file(scan: CasePaths) -> str:
    return mask_name(scan.images[0]) if len(scan.images) == 1 else scan.id + _suffix(scan.images[0])


def _suffix(path: Path) -> str:
    return path.name[len(case_id_from_path(path)) :] or ".nii.gz"
