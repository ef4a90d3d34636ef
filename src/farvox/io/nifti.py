"""NIfTI-1 and -2: voxels without needless copies, affine in mm, masks that keep the scan's header to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io.io_errors import validated_grid
from farvox.types import Array, FloatArray

_MM = {1: 1000.0, 3: 0.001}
"""Millimetres per unit by the header's spatial unit code (metre, micrometre); all other codes mean mm."""


def read(path: Path) -> tuple[Array, Grid, Any, tuple[str, ...]]:
    """Image (C, I, J, K), grid, nibabel header and notes.

    The dtype is the file's own unless the header asks for scaling, then float32.
    """
    import nibabel as nib

    file: Any = nib.load(path, mmap=False)
    grid, channels = _layout(file)
    if file.get_data_dtype().kind not in "iuf":
        raise DataError(f"voxels of type {file.get_data_dtype()}", allowed="one real number a voxel and channel")
    stored = file.dataobj
    if (stored.slope, stored.inter) == (1, 0):
        voxels = stored.get_unscaled()
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    else:
        voxels = np.asarray(stored, dtype=np.float32)
    return np.moveaxis(voxels.reshape(*grid.shape, channels, order="F"), -1, 0), grid, file.header, ()


def info(path: Path) -> tuple[Grid, int]:
    """Grid and number of channels, from the header alone."""
    import nibabel as nib

    return _layout(nib.load(path))


def write(path: Path, values: Array, grid: Grid, header: Any) -> None:
    """Write (I, J, K) or channels (I, J, K, C); geometry fields of a NIfTI `header` are copied untouched."""
    import nibabel as nib

    if not isinstance(header, nib.Nifti1Header):
        fresh = nib.Nifti1Image(values, grid.affine)
        fresh.set_sform(grid.affine, code=1)
        fresh.set_qform(grid.affine, code=1)
        fresh.header.set_xyzt_units("mm")
        nib.save(fresh, path)
        return
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    own = header.copy()
    own.set_data_dtype(values.dtype)
    own["cal_min"] = own["cal_max"] = 0
    own.set_intent("none")
    # Without an affine argument nibabel leaves qform, sform and their codes as the header has them.
    nib.save(kind(values, None, own), path)


def form_conflict(header: Any, grid: Grid) -> str | None:
    """What differs when qform and sform are both set and disagree, so that programs place the scan differently."""
    if not int(header["qform_code"]) or not int(header["sform_code"]):
        return None
    qform, sform = (Grid(grid.shape, form) for form in (header.get_qform(), header.get_sform()))
    return sform.difference_to(qform)


def _layout(file: Any) -> tuple[Grid, int]:
    shape = tuple(file.shape)
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) not in (3, 4):
        raise DataError(f"{len(shape)} dimensions ({'×'.join(map(str, shape))})", allowed="3, or 3 and channels")
    return validated_grid(shape[:3], _affine_mm(file)), shape[3] if len(shape) == 4 else 1


def _affine_mm(file: Any) -> FloatArray:
    affine = np.array(file.affine, dtype=np.float64)
    affine[:3] *= _MM.get(int(file.header["xyzt_units"]) & 7, 1.0)
    return affine
