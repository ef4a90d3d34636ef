"""NIfTI-1 and -2: voxels without needless copies, affine in mm, masks that keep the scan's header to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.types import Array, FloatArray, Shape

_MM = {1: 1000.0, 3: 0.001}
"""Millimetres per unit by the header's spatial unit code (metre, micrometre); all other codes mean mm."""
_QUATERNION_EXCESS = 1e-3
_SCALED, _CONTRADICTION = 1.01, 1.25
"""Ratios of voxel sizes by sform and by pixdim from which on a note is made, and the header refused."""


def read(path: Path) -> tuple[Array, Grid, Any, tuple[str, ...]]:
    """Image (C, I, J, K), grid, nibabel header and notes.

    The dtype is the file's own unless the header has a scaling, then float32.
    """
    file = _load(path)
    grid, channels, notes = _layout(file)
    if file.get_data_dtype().kind not in "iuf":
        raise DataError(f"voxels of type {file.get_data_dtype()}", allowed="one real number a voxel and channel")
    stored = file.dataobj
    if (stored.slope, stored.inter) == (1, 0):
        voxels = stored.get_unscaled()
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    else:
        voxels = np.asarray(stored, dtype=np.float32)
    return np.moveaxis(voxels.reshape(*grid.shape, channels, order="F"), -1, 0), grid, file.header, notes


def info(path: Path) -> tuple[Grid, int]:
    """Grid and number of channels, from the header alone."""
    return _layout(_load(path))[:2]


def read_header(path: Path) -> Any:
    """The nibabel header."""
    return _load(path).header


def write(path: Path, values: Array, grid: Grid, header: Any) -> None:
    """Write (I, J, K) or channels (I, J, K, C); geometry fields of a NIfTI `header` are copied untouched."""
    import nibabel as nib

    if not isinstance(header, nib.Nifti1Header):
        fresh = nib.Nifti1Image(values, grid.affine)
        fresh.set_sform(grid.affine, code=1)
        # A qform cannot hold sheared axes (gantry tilt): it would put the mask elsewhere than the sform does.
        fresh.set_qform(grid.affine, code=0 if _is_sheared(grid) else 1)
        fresh.header.set_xyzt_units("mm")
        nib.save(fresh, path)
        return
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    mask_header = header.copy()
    mask_header.set_data_dtype(values.dtype)
    mask_header["cal_min"] = mask_header["cal_max"] = 0
    mask_header.set_intent("none")
    # Without an affine argument nibabel leaves qform, sform and their codes as the header has them.
    nib.save(kind(values, None, mask_header), path)


def _load(path: Path) -> Any:
    import nibabel as nib

    try:
        return nib.load(path, mmap=False)
    except ValueError as error:
        if "w2" not in str(error):
            raise
    # The quaternion is longer than 1 by rounding; nibabel accepts it in a header class of greater tolerance.
    for kind, header in ((nib.Nifti1Image, nib.Nifti1Header), (nib.Nifti2Image, nib.Nifti2Header)):
        tolerant = type(header.__name__, (header,), {"quaternion_threshold": -_QUATERNION_EXCESS})
        image: Any = type(kind.__name__, (kind,), {"header_class": tolerant})
        try:
            return image.from_filename(path, mmap=False)
        except nib.spatialimages.HeaderDataError:
            continue
    raise DataError("the quaternion of the qform is longer than 1", hint="set the qform again from the sform")


def _layout(file: Any) -> tuple[Grid, int, tuple[str, ...]]:
    shape = tuple(file.shape)
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) not in (3, 4):
        raise DataError(f"{len(shape)} dimensions ({'×'.join(map(str, shape))})", allowed="3, or 3 and channels")
    affine, notes = _affine(file, shape[:3])
    affine[:3] *= _MM.get(int(file.header["xyzt_units"]) & 7, 1.0)
    return Grid(shape[:3], affine), shape[3] if len(shape) == 4 else 1, tuple(notes)


def _affine(file: Any, shape: Shape) -> tuple[FloatArray, list[str]]:
    """The affine in the header's unit, from the form that can be trusted, and what was assumed."""
    header = file.header
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    sform, qform = np.array(header.get_sform(), dtype=np.float64), _qform(header)
    notes = []
    if has_qform and not _is_usable(qform):
        notes.append("the qform of the header is not valid and is ignored")
        has_qform = False
    if has_sform and not _is_usable(sform):
        if not has_qform:
            return sform, notes  # refused as a singular affine
        return qform, [*notes, "the sform of the header is not valid; the qform is used"]
    if not has_sform and not has_qform:
        return np.array(header.get_base_affine(), dtype=np.float64), [
            *notes,
            "the header has no orientation (sform and qform codes are 0): axes are taken as left, anterior, superior; "
            "other programs may exchange left and right",
        ]
    if not has_sform:
        return qform, notes
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    ratio = lengths / np.where(pixdim > 0, pixdim, lengths)
    off = float(np.max(np.maximum(ratio, 1 / ratio)))
    if off > _CONTRADICTION:
        raise DataError(
            f"the header contradicts itself: voxels of {_mm(lengths)} by the sform, of {_mm(pixdim)} by pixdim",
            allowed="one voxel size",
            hint="correct the sform in the header (nibabel: image.set_sform), or remove it where the qform is right",
        )
    if has_qform and (difference := Grid(shape, sform).difference_to(Grid(shape, qform))):
        notes.append(f"qform and sform of the header disagree: {difference}; the sform is used")
    elif off > _SCALED:
        notes.append(f"voxels are {_mm(lengths)} by the sform and {_mm(pixdim)} by pixdim; the sform is used")
    return sform, notes


def _qform(header: Any) -> FloatArray:
    """The qform, whose quaternion may be longer than 1 by rounding; NaN where it cannot be computed."""
    try:
        return np.array(header.get_qform(), dtype=np.float64)
    except ValueError:
        pass
    vector = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    excess = float((vector**2).sum()) - 1
    if not 0 <= excess <= _QUATERNION_EXCESS:
        return np.full((4, 4), np.nan)
    twin = header.copy()
    for axis, value in zip("bcd", vector / np.sqrt(1 + excess) * (1 - 1e-7), strict=True):
        twin[f"quatern_{axis}"] = value
    return np.array(twin.get_qform(), dtype=np.float64)


def _is_usable(affine: FloatArray) -> bool:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * lengths.prod() > 0)


def _is_sheared(grid: Grid) -> bool:
    return bool(np.abs(grid.axes.T @ grid.axes - np.eye(3)).max() > 1e-4)


def _mm(lengths: FloatArray) -> str:
    return "×".join(f"{length:.3g}" for length in lengths) + " mm"
