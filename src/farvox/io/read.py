"""Read a scan, a label or only a grid, in any format."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io import dicom, itk, nifti
from farvox.io.io_errors import reading
from farvox.io.names import NIFTI_SUFFIXES, require_suffix
from farvox.io.scan import Scan
from farvox.types import Array


def read_scan(path: Path, *, case: str | None = None) -> Scan:
    """Read an image with all its channels.

    Args:
        path: A .nii, .nii.gz, .mha, .mhd or .nrrd file, or a folder with one DICOM series.
        case: Id for messages.

    Returns:
        The scan: (C, I, J, K) in the file's voxel order and, if the header has no scaling, its own dtype;
        affine in RAS mm. A fourth NIfTI axis (x, y, z, c), a fifth (x, y, z, 1, c) and ITK vectors are channels.

    Raises:
        DataError: Missing, damaged or foreign file, 2D image, singular affine, several DICOM series in a folder.
    """
    path = Path(path)
    with reading(path, case):
        image, grid, header, notes = _format(path).read(path)
    return Scan(image, grid, path, header, notes)


def read_label(path: Path, *, case: str | None = None) -> tuple[Array, Grid]:
    """Read a label file: raw values (I, J, K), possibly stored as floats, and the grid.

    Raises:
        DataError: As `read_scan`, and for a label with several channels.
    """
    scan = read_scan(path, case=case)
    if len(scan.image) != 1:
        raise DataError(
            f"{Path(path).name}: the label has {len(scan.image)} channels",
            allowed="one integer a voxel (3D)",
            hint="merge the channels into one label map",
            case=case,
        )
    return scan.image[0], scan.grid


def read_grid(path: Path, *, case: str | None = None) -> Grid:
    """Read the grid from the header alone."""
    return _info(Path(path), case)[0]


def count_channels(path: Path, *, case: str | None = None) -> int:
    """Read the number of channels, from the header alone."""
    return _info(Path(path), case)[1]


def read_header(path: Path, *, case: str | None = None) -> Any:
    """Read the header that a mask of this scan needs, without voxels; None for a DICOM series."""
    path = Path(path)
    with reading(path, case):
        return _format(path).read_header(path)


def _info(path: Path, case: str | None) -> tuple[Grid, int]:
    with reading(path, case):
        return _format(path).info(path)


def _format(path: Path) -> ModuleType:
    if path.is_dir():
        return dicom
    return nifti if require_suffix(path) in NIFTI_SUFFIXES else itk
