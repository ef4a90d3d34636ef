"""Files: what is read equals what other readers say, what is written comes back, failures are one clear line."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from farvox.errors import DataError, ResourceError
from farvox.geometry import Grid
from farvox.io import (
    Scan,
    case_id_from_path,
    count_channels,
    is_scan,
    mask_name,
    read_grid,
    read_label,
    read_scan,
    write_mask,
)
from tests.conftest import real_data
from tests.data.files import blob, noise, oblique, save

SHAPE = (7, 5, 3)
ENDINGS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


def scan_file(folder: Path, ending: str, image: np.ndarray, affine: np.ndarray) -> Path:
    """A scan in any format, written without the code under test."""
    path = folder / f"scan{ending}"
    if ending.startswith(".nii"):
        return save(path, image, affine)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    file = sitk.GetImageFromArray(image.transpose(2, 1, 0))
    file.SetSpacing(spacing.tolist())
    file.SetOrigin(lps[:3, 3].tolist())
    file.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(file, str(path))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_reads_the_same_voxels_at_the_same_place(tmp_path: Path, ending: str) -> None:
    image = noise(SHAPE)
    path = scan_file(tmp_path, ending, image, oblique())
    scan = read_scan(path)
    assert scan.image.dtype == np.int16
    np.testing.assert_array_equal(scan.image, image[None])
    np.testing.assert_allclose(scan.grid.affine, oblique(), atol=1e-5)
    assert read_grid(path).difference_to(scan.grid) is None
    assert count_channels(path) == 1


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32])
def test_mask_comes_back_with_values_and_place(tmp_path: Path, ending: str, dtype: type) -> None:
    scan = read_scan(scan_file(tmp_path, ending, noise(SHAPE), oblique()))
    values = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, SHAPE, endpoint=True).astype(dtype)
    target = tmp_path / "out" / f"mask{ending}"
    write_mask(target, values, scan)
    back, grid = read_label(target)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(grid.affine, scan.grid.affine)
    companions = {"mask.zraw"} if ending == ".mhd" else set()
    assert {path.name for path in target.parent.iterdir()} == {target.name, *companions}


@pytest.mark.parametrize("ending", ENDINGS)
def test_mask_of_a_scan_without_header_lies_on_its_grid_for_other_readers(tmp_path: Path, ending: str) -> None:
    scan = Scan(noise((1, *SHAPE)), Grid(SHAPE, oblique()), Path("array"))
    target = tmp_path / f"mask{ending}"
    write_mask(target, blob(SHAPE, 1, 2), scan)
    image = sitk.ReadImage(str(target))
    lps = np.array(image.TransformIndexToPhysicalPoint((6, 1, 2)))
    np.testing.assert_allclose(lps * [-1, -1, 1], scan.grid.voxel_to_mm(np.array([[6.0, 1.0, 2.0]]))[0], atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), blob(SHAPE, 1, 2).transpose(2, 1, 0))


def test_mask_types_that_no_format_holds(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii", noise(SHAPE)))
    for given, stored in ((bool, "uint8"), (np.int64, "uint16")):
        values = np.zeros(SHAPE, dtype=given)
        values[1] = 1 if given is bool else 600
        write_mask(tmp_path / "mask.nii.gz", values, scan)
        back, _ = read_label(tmp_path / "mask.nii.gz")
        assert back.dtype == stored
        np.testing.assert_array_equal(back, values)
    with pytest.raises(ValueError, match="integers"):
        write_mask(tmp_path / "x.nii", np.zeros(SHAPE), scan)
    with pytest.raises(ValueError, match="shape"):
        write_mask(tmp_path / "x.nii", np.zeros((2, 2, 2), np.uint8), scan)
    with pytest.raises(DataError, match=r"x\.png is in no known format"):
        write_mask(tmp_path / "x.png", np.zeros(SHAPE, np.uint8), scan)


GEOMETRY = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
GEOMETRY += ("qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 4), (3, 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_mask_keeps_the_nifti_geometry_to_the_byte(
    tmp_path: Path, codes: tuple[int, int], kind: type, channels: tuple[int, ...]
) -> None:
    file = kind(noise(SHAPE + channels), oblique())
    file.set_sform(oblique(), codes[1])
    file.set_qform(oblique((0.7, 1.3, 4.4)), codes[0])
    file.header.set_xyzt_units("mm", "sec")
    file.header["pixdim"][1:4] = (0.7, 1.3, 4.4)
    file.header["cal_max"] = 900
    file.header.set_slope_inter(2.5, 0)
    file.header.set_intent("vector")
    nib.save(file, tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    write_mask(tmp_path / "mask.nii.gz", blob(SHAPE, 1, 2), scan)
    before, after = (nib.load(tmp_path / name).header for name in ("scan.nii.gz", "mask.nii.gz"))
    for field in GEOMETRY:
        own = before[field][:4] if field == "pixdim" else before[field]
        kept = after[field][:4] if field == "pixdim" else after[field]
        assert np.asarray(own).tobytes() == np.asarray(kept).tobytes(), field
    assert type(nib.load(tmp_path / "mask.nii.gz")) is kind
    assert after.get_data_shape() == SHAPE
    assert after.get_data_dtype() == np.uint8
    assert (float(after["cal_max"]), after.get_intent()[0]) == (0, "none")
    back, grid = read_label(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(back, blob(SHAPE, 1, 2))
    np.testing.assert_array_equal(grid.affine, scan.grid.affine)


def test_scaled_nifti_is_float32_and_unscaled_keeps_its_dtype(tmp_path: Path) -> None:
    stored = noise(SHAPE)
    file = nib.Nifti1Image(stored, np.eye(4))
    file.header.set_slope_inter(0.5, -3)
    nib.save(file, tmp_path / "scaled.nii.gz")
    on_disk = np.asarray(nib.load(tmp_path / "scaled.nii.gz").dataobj)
    scan = read_scan(tmp_path / "scaled.nii.gz")
    assert scan.image.dtype == np.float32
    np.testing.assert_allclose(scan.image[0], on_disk, rtol=1e-6)
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
        save(tmp_path / "plain.nii", np.abs(stored % 100).astype(dtype))
        assert read_scan(tmp_path / "plain.nii").image.dtype == dtype


def test_big_endian_and_micrometres(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    file = nib.Nifti1Image(noise(SHAPE), np.diag([150.0, 150, 200, 1]), header)
    file.header.set_xyzt_units("micron")
    nib.save(file, tmp_path / "mouse.nii")
    scan = read_scan(tmp_path / "mouse.nii")
    assert scan.image.dtype.isnative
    np.testing.assert_array_equal(scan.image[0], noise(SHAPE))
    np.testing.assert_allclose(scan.grid.spacing, (0.15, 0.15, 0.2))
    np.testing.assert_allclose(sitk.ReadImage(str(tmp_path / "mouse.nii")).GetSpacing(), (0.15, 0.15, 0.2), rtol=1e-6)


def test_channels_of_4d_5d_and_vector_files(tmp_path: Path) -> None:
    image = noise((*SHAPE, 3))
    save(tmp_path / "four.nii.gz", image)
    save(tmp_path / "five.nii.gz", image.reshape(*SHAPE, 1, 3))
    vector = sitk.GetImageFromArray(image.transpose(2, 1, 0, 3), isVector=True)
    for ending in ("mha", "nrrd"):
        sitk.WriteImage(vector, str(tmp_path / f"vector.{ending}"))
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_scan(path).image, np.moveaxis(image, -1, 0))
        assert count_channels(path) == 3
        with pytest.raises(DataError, match=r"case a: .*the label has 3 channels"):
            read_label(path, case="a")


def test_dicom_slices_are_in_order_of_position() -> None:
    import pydicom

    folder = real_data("dicom_sample") / "HippoCrop"
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda s: s.ImagePositionPatient[2])
    scan = read_scan(folder)
    expected = np.stack([s.pixel_array.T for s in slices], axis=-1)
    np.testing.assert_array_equal(scan.image[0], expected)
    for k in (0, 9, 31):
        x, y, z = map(float, slices[k].ImagePositionPatient)
        np.testing.assert_allclose(scan.grid.voxel_to_mm(np.array([[0.0, 0.0, k]]))[0], (-x, -y, z), atol=1e-6)
    assert read_grid(folder).difference_to(scan.grid) is None
    assert mask_name(folder) == "HippoCrop.nii.gz"
    assert is_scan(folder)
    assert not is_scan(folder.parent)


@pytest.fixture
def dicom_copy(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    for path in (real_data("dicom_sample") / "HippoCrop").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_dicom_with_a_slice_missing_names_the_gap(dicom_copy: Path) -> None:
    (dicom_copy / "17.dcm").unlink()
    with pytest.raises(DataError, match=r"case p1: series: 1 slice is missing: 2 mm between 1[68]\.dcm and 1[68]\.dcm"):
        read_scan(dicom_copy, case="p1")


def test_dicom_folder_with_two_series_names_both(dicom_copy: Path) -> None:
    import pydicom

    extra = pydicom.dcmread(dicom_copy / "1.dcm")
    extra.SeriesInstanceUID = "1.2.3.4"
    extra.save_as(dicom_copy / "other.dcm")
    with pytest.raises(DataError, match=r"holds 2 DICOM series: .*1\.2\.3\.4.* \(1 files\).*folder of its own"):
        read_scan(dicom_copy)


def test_dicom_mask_and_rescaled_intensities(dicom_copy: Path, tmp_path: Path) -> None:
    import pydicom

    plain = read_scan(dicom_copy)
    for path in dicom_copy.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.RescaleSlope, slice_.RescaleIntercept = "0.5", "-1024"
        slice_.save_as(path)
    scan = read_scan(dicom_copy)
    assert scan.image.dtype == np.float32
    np.testing.assert_allclose(scan.image, plain.image * 0.5 - 1024)
    values = blob(scan.grid.shape, 1, 2)
    write_mask(tmp_path / mask_name(dicom_copy), values, scan)
    back, grid = read_label(tmp_path / "series.nii.gz")
    np.testing.assert_array_equal(back, values)
    np.testing.assert_allclose(grid.affine, scan.grid.affine, atol=1e-5)


def damaged(tmp_path: Path, how: str) -> Path:
    path = save(tmp_path / "a.nii.gz", noise((20, 20, 20)))
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "zero-byte":
        path.write_bytes(b"")
    elif how == "text as .nii.gz":
        path.write_text("<html>not found</html>", encoding="utf-8")
    elif how == "gzipped text":
        path.write_bytes(gzip.compress(b"hello" * 200))
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "corrupt":
        path.write_bytes(content[:600] + bytes(100) + content[700:])
    elif how == "truncated .nii":
        plain = gzip.decompress(content)
        path = tmp_path / "a.nii"
        path.write_bytes(plain[: len(plain) // 2])
    elif how in ("mha", "nrrd", "mhd"):
        path = scan_file(tmp_path, f".{how}", noise((20, 20, 20)), np.eye(4))
        data = path.with_suffix(".raw") if how == "mhd" else path
        data.write_bytes(data.read_bytes()[:5000])
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "no such file"),
        ("zero-byte", "empty \\(0 bytes\\)"),
        ("text as .nii.gz", "not gzip"),
        ("gzipped text", "no NIfTI file"),
        ("truncated", "cut short"),
        ("corrupt", "cannot be read"),
        ("truncated .nii", "cut short"),
        ("mha", "cannot be read|cut short"),
        ("nrrd", "cannot be read|cut short"),
        ("mhd", "cannot be read|cut short"),
    ],
)
def test_damaged_files_are_one_line_with_the_case(tmp_path: Path, how: str, words: str) -> None:
    path = damaged(tmp_path, how)
    with pytest.raises(DataError, match=rf"^case p7: {path.name}: .*({words})") as caught:
        read_scan(path, case="p7")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_images_that_are_not_3d_or_have_no_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 dimensions \(7×5\); expected: 3"):
        read_scan(save(tmp_path / "flat.nii", noise((7, 5))))
    sitk.WriteImage(sitk.GetImageFromArray(noise((7, 5))), str(tmp_path / "flat.mha"))
    with pytest.raises(DataError, match=r"2 dimensions \(5×7\); expected: 3"):
        read_scan(tmp_path / "flat.mha")
    file = nib.Nifti1Image(noise(SHAPE), np.eye(4))
    file.header["srow_z"] = 0
    nib.save(nib.Nifti1Image(noise(SHAPE), None, file.header), tmp_path / "singular.nii")
    with pytest.raises(DataError, match=r"case s: singular.nii: the affine is singular: .*sform or qform"):
        read_grid(tmp_path / "singular.nii", case="s")
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(DataError, match="voxels of type"):
        read_scan(save(tmp_path / "colour.nii", colour))


def test_names() -> None:
    assert case_id_from_path(Path("a/liver.1.nii.gz")) == "liver.1"
    assert case_id_from_path(Path("a/Case07.MHD")) == "Case07"
    assert mask_name(Path("a/scan.mha")) == "scan.mha"
    assert not is_scan(Path("a/._scan.nii.gz"))


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from farvox.io import Scan, write_mask
from farvox.errors import ResourceError
from farvox.geometry import Grid
values = np.random.default_rng(0).integers(0, 255, (64, 64, 64), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for path in map(Path, sys.argv[1:]):
    try:
        write_mask(path, values, Scan(values[None], Grid(values.shape, np.eye(4)), path))
    except ResourceError as error:
        print(error)
"""


def test_full_disk_leaves_the_old_mask_and_nothing_half_written(tmp_path: Path) -> None:
    scan = Scan(noise((1, *SHAPE)), Grid(SHAPE, np.eye(4)), Path("array"))
    targets = [tmp_path / f"mask{ending}" for ending in ENDINGS]
    for target in targets:
        write_mask(target, blob(SHAPE, 1, 2), scan)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, targets)], capture_output=True, text=True, check=True, timeout=120
    )
    lines = run.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"cannot write {target}" for target in targets], run.stderr
    assert all("hint:" in line for line in lines)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    scan = Scan(noise((1, *SHAPE)), Grid(SHAPE, np.eye(4)), Path("array"))
    with pytest.raises(ResourceError, match="cannot write"):
        write_mask(tmp_path / "file" / "mask.nii.gz", blob(SHAPE, 1), scan)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["mscmrseg_bssfp", "brats2015_deepmedic", "mouse_brain_fvb", "chaos_mr_t2spir"])
def test_real_scan_agrees_with_simpleitk(name: str) -> None:
    path = sorted((real_data(name) / "imagesTr").iterdir())[0]
    scan, image = read_scan(path), sitk.ReadImage(str(path))
    other = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(scan.image, (other if other.ndim == 4 else other[None]).transpose(0, 3, 2, 1))
    corner = [n - 1 for n in image.GetSize()]
    lps = np.array(image.TransformIndexToPhysicalPoint(corner))[:3]
    np.testing.assert_allclose(
        scan.grid.voxel_to_mm(np.array([corner[:3]], dtype=float))[0], lps * [-1, -1, 1], atol=1e-2
    )
