"""File names: which files are scans, the id of a case, and the name of its mask."""

from __future__ import annotations

from pathlib import Path

from farvox.errors import DataError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd")
SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES
"""File endings that are read and written, the longer ones first."""


def suffix(path: Path) -> str:
    """The (double) suffix in lower case, one of `SUFFIXES`, or '' when the file is no scan."""
    name = Path(path).name.lower()
    return next((ending for ending in SUFFIXES if name.endswith(ending)), "")


def require_suffix(path: Path) -> str:
    """The suffix, or a DataError that lists the known ones."""
    ending = suffix(path)
    if not ending:
        raise DataError(f"{Path(path).name} is in no known format", allowed=", ".join(SUFFIXES) + ", a DICOM folder")
    return ending


def case_id_from_path(path: Path) -> str:
    """File or folder name without its (double) suffix: 'a/liver_1.nii.gz' → 'liver_1'."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def mask_suffix(path: Path) -> str:
    """The suffix of a mask for this scan: the scan's own, or .nii.gz for a DICOM folder."""
    return path.name[len(case_id_from_path(path)) :] or ".nii.gz"


def mask_name(scan_path: Path) -> str:
    """Name of the mask that belongs to a scan: the same name, or '<folder>.nii.gz' for a DICOM folder."""
    return scan_path.name if suffix(scan_path) else f"{scan_path.resolve().name}.nii.gz"


def is_scan(path: Path) -> bool:
    """Whether the path is a file in a known format, or a folder with DICOM files; no file is opened but a DICOM one."""
    path = Path(path)
    if path.name.startswith("._"):
        return False
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        return any(is_dicom(file) for file in files)
    return bool(suffix(path)) and path.is_file()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, with the usual preamble or without it."""
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        head = file.read(132)
    # Without a preamble a file starts with an element of group 8 (or 2), little endian.
    return head[128:] == b"DICM" or (len(head) == 132 and head[:2] in (b"\x08\x00", b"\x02\x00") and head[3:4] == b"\0")
