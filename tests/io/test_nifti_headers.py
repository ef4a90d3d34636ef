"""NIfTI headers that contradict themselves: what is certain is read, a guess is noted, the rest is refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io import Scan, read_scan, write_mask

SHAPE = (6, 5, 4)
AFFINE = np.array([[2.0, 0, 0, -40], [0, 2, 0, -30], [0, 0, 3, 10], [0, 0, 0, 1]])


def save(path: Path, change: Callable[[Any], None]) -> Path:
    """A scan whose header is changed on disk, past nibabel's own checks."""
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    nib.save(image, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    change(header)
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def fields(**values: Any) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        for name, value in values.items():
            header[name] = value

    return change


def unscaled(header: Any) -> None:
    header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 1


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (fields(), None),
        (fields(sform_code=0, srow_x=0, srow_y=0, srow_z=0), None),
        (fields(srow_x=0, srow_y=0, srow_z=0), "the sform of the header is not valid; the qform is used"),
        (fields(qoffset_x=np.nan), "the qform of the header is not valid and is ignored"),
        (fields(qoffset_x=60.0), "qform and sform of the header disagree: affine differs by up to 100 mm"),
        (fields(qform_code=0), None),
    ],
)
def test_what_is_certain_is_read(tmp_path: Path, change: Callable[[Any], None], note: str | None) -> None:
    scan = read_scan(save(tmp_path / "scan.nii.gz", change))
    np.testing.assert_allclose(scan.grid.affine, AFFINE)
    assert [note in line for line in scan.notes] == ([] if note is None else [True])


@pytest.mark.parametrize("excess", [2e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("sform", [0, 1])
def test_a_quaternion_too_long_by_rounding_is_read(tmp_path: Path, excess: float, sform: int) -> None:
    change = fields(sform_code=sform, quatern_b=0, quatern_c=0, quatern_d=np.sqrt(1 + excess))
    scan = read_scan(save(tmp_path / "scan.nii.gz", change))
    turned = AFFINE * np.array([-1, -1, 1, 1])
    np.testing.assert_allclose(scan.grid.affine, AFFINE if sform else turned, atol=1e-4)


def test_a_header_without_orientation_is_a_noted_guess(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii.gz", fields(sform_code=0, qform_code=0)))
    assert scan.grid.axcodes == "LAS"
    assert "no orientation (sform and qform codes are 0)" in scan.notes[0]


def test_voxel_sizes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="voxels of 1×1×1 mm by the sform, of 2×2×3 mm by pixdim"):
        read_scan(save(tmp_path / "scan.nii.gz", unscaled), case="p1")


def test_a_sheared_mask_has_one_form(tmp_path: Path) -> None:
    """A qform cannot hold sheared axes, so it is left out where the sform has them."""
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    scan = Scan(np.zeros((1, *SHAPE), np.int16), Grid(SHAPE, sheared), Path("series"))
    write_mask(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), scan)
    header = nib.load(tmp_path / "mask.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), sheared)
