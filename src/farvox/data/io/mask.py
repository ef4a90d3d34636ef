"""Write a mask onto its scan's grid: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from farvox.data.case import Scan
from farvox.data.io import itk, nifti
from farvox.data.io.failures import writing
from farvox.data.io.names import NIFTI_SUFFIXES, known_suffix
from farvox.types import Array


def write_mask(path: Path, values: Array, like: Scan) -> None:
    """Write label values with the scan's shape, affine, orientation and header.

    The file appears under its name only when it is complete; a failure leaves what was there before.

    Args:
        path: Where to; the suffix decides the format (.nii, .nii.gz, .mha, .mhd with its .zraw, .nrrd).
        values: (I, J, K) integers on the scan's grid.
        like: The scan the mask belongs to.

    Raises:
        DataError: Unknown suffix.
        ResourceError: The disk is full or the folder cannot be written to.
        ValueError: `values` are not integers on the scan's grid.
    """
    path = Path(path)
    write = (nifti if known_suffix(path) in NIFTI_SUFFIXES else itk).write
    if values.shape != like.grid.shape:
        raise ValueError(f"mask of shape {values.shape} for a scan of shape {like.grid.shape}")
    with whole_file(path) as inner:
        write(inner, _storable(values), like.grid, like.header)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to in the block; what stands there takes its place at `path` when the block has ended well."""
    # A folder and not a file of another name: an .mhd header names the data file beside it.
    with writing(path), whole_files(path.parent) as folder:
        yield folder / path.name


@contextmanager
def whole_files(out: Path) -> Iterator[Path]:
    """A folder to write to in the block; its files take their places in `out` when the block has ended well."""
    beside = out if out.is_dir() else out.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=beside) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        # An .mhd header comes last, since it names the file with its voxels.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.suffix == ".mhd"):
            os.replace(part, out / part.name)


def _storable(values: Array) -> Array:
    """The values in a type all formats hold: 8 to 32 bits."""
    if values.dtype.kind not in "iub":
        raise ValueError(f"mask of type {values.dtype}, integers are due")
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.itemsize <= 4:
        return values
    low, high = int(values.min()), int(values.max())
    return values.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))
