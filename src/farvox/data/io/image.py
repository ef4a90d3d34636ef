"""Write intensities in a scan's format and place: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farvox.data.case import Scan
from farvox.data.io import itk, nifti
from farvox.data.io.mask import whole_file
from farvox.data.io.names import NIFTI_SUFFIXES, known_suffix
from farvox.types import Array


def write_image(path: Path, image: Array, like: Scan) -> None:
    """Write (C, I, J, K) intensities with a scan's shape, affine, orientation and header.

    Args:
        path: Where to; the suffix decides the format, as for masks.
        image: On the scan's grid, float32 or integers; several channels become a fourth axis (NIfTI) or vectors.
        like: The scan whose place it takes.

    Raises:
        DataError: Unknown suffix.
        ResourceError: The disk is full or the folder cannot be written to.
        ValueError: `image` is not on the scan's grid.
    """
    if image.shape[1:] != like.grid.shape:
        raise ValueError(f"image of shape {image.shape[1:]} for a scan of shape {like.grid.shape}")
    write = (nifti if known_suffix(path) in NIFTI_SUFFIXES else itk).write
    values = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    with whole_file(path) as inner:
        write(inner, values, like.grid, like.header)
