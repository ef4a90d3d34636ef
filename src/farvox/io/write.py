"""Write masks and images on the grid of a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farvox._atomic import atomic_file
from farvox.io import itk, nifti
from farvox.io.names import NIFTI_SUFFIXES, require_suffix
from farvox.io.scan import Scan
from farvox.types import Array


def write_mask(path: Path, values: Array, like: Scan) -> None:
    """Write label values with the scan's shape, affine, orientation and header.

    The file appears under its name only when it is complete; after a failure the old file is kept.

    Args:
        path: File to write; the suffix decides the format (.nii, .nii.gz, .mha, .mhd with its .zraw, .nrrd).
        values: (I, J, K) integers on the scan's grid.
        like: The scan the mask belongs to.

    Raises:
        DataError: Unknown suffix.
        ResourceError: The disk is full or the folder cannot be written to.
        ValueError: `values` are not integers on the scan's grid.
    """
    path = Path(path)
    write = (nifti if require_suffix(path) in NIFTI_SUFFIXES else itk).write
    if values.shape != like.grid.shape:
        raise ValueError(f"mask of shape {values.shape} for a scan of shape {like.grid.shape}")
    with atomic_file(path) as inner:
        write(inner, _storable(values), like.grid, like.header)


def write_image(path: Path, image: Array, like: Scan) -> None:
    """Write (C, I, J, K) intensities with a scan's shape, affine, orientation and header.

    Args:
        path: File to write; the suffix decides the format, as for masks.
        image: On the scan's grid, float32 or integers; several channels become a fourth axis (NIfTI) or vectors.
        like: The scan whose grid and header are used.

    Raises:
        DataError: Unknown suffix.
        ResourceError: The disk is full or the folder cannot be written to.
        ValueError: `image` is not on the scan's grid.
    """
    if image.shape[1:] != like.grid.shape:
        raise ValueError(f"image of shape {image.shape[1:]} for a scan of shape {like.grid.shape}")
    write = (nifti if require_suffix(path) in NIFTI_SUFFIXES else itk).write
    values = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    with atomic_file(path) as inner:
        write(inner, values, like.grid, like.header)


def _storable(values: Array) -> Array:
    """The values in a type all formats hold: 8 to 32 bits."""
    if values.dtype.kind not in "iub":
        raise ValueError(f"mask of type {values.dtype}, integers are required")
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.itemsize <= 4:
        return values
    low, high = int(values.min()), int(values.max())
    return values.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))
