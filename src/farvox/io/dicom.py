"""A folder of DICOM files as one scan: slices in the order of their positions, none missing, one series."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io.io_errors import validated_grid
from farvox.io.itk import LPS_TO_RAS, Placement, read_itk_header, to_channels_first
from farvox.types import Array


def read(path: Path) -> tuple[Array, Grid, None]:
    """Image (C, I, J, K), rescaled as the files ask (HU in CT), and grid."""
    import SimpleITK as sitk

    files = _slices(path)
    grid, _ = _layout(files)
    image = sitk.ReadImage(files if len(files) > 1 else files[0])
    voxels = to_channels_first(image)
    return voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels, grid, None


def info(path: Path) -> tuple[Grid, int]:
    """Grid and number of channels, from the headers alone."""
    return _layout(_slices(path))


def _slices(path: Path) -> list[str]:
    import SimpleITK as sitk

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if not series:
        raise DataError("the folder holds no DICOM series", allowed="a folder with the files of one series")
    cases_by_id = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), uid) for uid in series}
    if len(cases_by_id) > 1:
        shown = ", ".join(f"{uid} ({len(files)} files)" for uid, files in cases_by_id.items())
        raise DataError(
            f"the folder holds {len(cases_by_id)} DICOM series: {shown}",
            allowed="one series a folder",
            hint="move each series into a folder of its own",
        )
    return list(next(iter(cases_by_id.values())))


def _layout(files: list[str]) -> tuple[Grid, int]:
    """Grid with its third axis taken from the slices' positions, which holds for tilted gantries too."""
    headers = [read_itk_header(Path(file)) for file in files]
    first = headers[0]
    affine = Placement.of(first).affine
    sizes = {header.GetSize()[:2] for header in headers}
    if len(sizes) > 1:
        raise DataError(f"slices of different size: {sorted(sizes)}", hint="move scouts and extra series elsewhere")
    if len(files) == 1:
        return validated_grid(first.GetSize(), affine), first.GetNumberOfComponents()
    positions = np.array([header.GetOrigin() for header in headers]) @ LPS_TO_RAS[:3, :3]
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    gaps = np.linalg.norm(steps - usual, axis=1)
    worst = int(gaps.argmax())
    if gaps[worst] > 0.1 * np.linalg.norm(usual) or not usual.any():
        raise DataError(
            f"slices are unevenly spaced: {np.linalg.norm(steps[worst]):.3g} mm between {Path(files[worst]).name} and "
            f"{Path(files[worst + 1]).name}, {np.linalg.norm(usual):.3g} mm elsewhere",
            allowed="one slice at every step",
            hint="fetch the missing slices, or move doubled ones elsewhere",
        )
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(files) - 1)
    return validated_grid((*first.GetSize()[:2], len(files)), affine), first.GetNumberOfComponents()
