"""DICOM folders as scanners and archives write them: what is read, and what is refused by name."""

from __future__ import annotations

import locale
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farvox.errors import DataError
from farvox.io import is_scan, read_grid, read_scan
from farvox.types import Array

pydicom = pytest.importorskip("pydicom")
SPACING = (2.0, 2.5, 3.0)


def volume(shape: tuple[int, int, int] = (7, 6, 5)) -> Array:
    return np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)


def new_dataset(sop_class: str) -> Any:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "x", "x"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    return dataset


def stored(plane: Array) -> bytes:
    """Pixels of (I, J) as a file holds them: rows along I, columns along J."""
    return np.ascontiguousarray(plane.T.astype("<i2")).tobytes()


def write_series(
    folder: Path, image: Array, change: Callable[[Any, int], None] | None = None, tilt: float = 0.0, prefix: str = "IM"
) -> Path:
    """Slices of (I, J, K) along +z, rows along +x, columns along +y or tilted out of it by so many degrees."""
    folder.mkdir(parents=True, exist_ok=True)
    angle = np.deg2rad(tilt)
    for k in range(image.shape[2]):
        dataset = new_dataset(pydicom.uid.CTImageStorage)
        dataset.InstanceNumber = k + 1
        dataset.Rows, dataset.Columns = image.shape[1], image.shape[0]
        dataset.PixelSpacing, dataset.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle))]
        dataset.ImagePositionPatient = [10, 20, 30 + k * SPACING[2]]
        dataset.PixelData = stored(image[..., k])
        if change:
            change(dataset, k)
        dataset.save_as(folder / f"{prefix}{k:04d}.dcm", enforce_file_format=True)
    return folder


def test_a_series_is_read_with_its_grid(tmp_path: Path) -> None:
    scan = read_scan(write_series(tmp_path / "s", volume()))
    np.testing.assert_array_equal(scan.image[0], volume())
    assert scan.image.dtype == np.int16
    np.testing.assert_allclose(scan.grid.affine, [[-2, 0, 0, -10], [0, -2.5, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    assert read_grid(tmp_path / "s").difference_to(scan.grid) is None
    assert scan.notes == ()


def test_each_slice_has_its_own_rescaling(tmp_path: Path) -> None:
    slopes = np.linspace(0.2, 1.7, 5)

    def change(dataset: Any, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[k]:.6g}", "-3"

    scan = read_scan(write_series(tmp_path / "s", volume(), change))
    np.testing.assert_allclose(scan.image[0], volume() * np.round(slopes, 6) - 3, rtol=1e-5)


def test_whole_rescaling_keeps_whole_numbers(tmp_path: Path) -> None:
    def change(dataset: Any, _k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"

    scan = read_scan(write_series(tmp_path / "s", volume(), change))
    assert scan.image.dtype == np.int16
    np.testing.assert_array_equal(scan.image[0], volume() - 1024)


def test_monochrome1_is_about_display(tmp_path: Path) -> None:
    def change(dataset: Any, _k: int) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    np.testing.assert_array_equal(read_scan(write_series(tmp_path / "s", volume(), change)).image[0], volume())


def test_gantry_tilt_is_in_the_affine_and_noted(tmp_path: Path) -> None:
    scan = read_scan(write_series(tmp_path / "s", volume(), tilt=20.0))
    angle = np.deg2rad(20)
    expected = np.array([[-2, 0, 0], [0, -2.5 * np.cos(angle), 0], [0, -2.5 * np.sin(angle), 3]])
    np.testing.assert_allclose(scan.grid.affine[:3, :3], expected, atol=1e-6)
    assert any("gantry tilt of 20.0°" in note for note in scan.notes)


def test_files_are_found_whatever_their_names(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", volume())
    for number in range(8):
        (folder / f"A{number}.txt").write_text("notes", encoding="utf-8")
    for file in list(folder.glob("*.dcm")):
        (folder / f"._{file.name}").write_bytes(b"\0\5\26\7" + b"\0" * 500)
        file.rename(folder / f"z{9 - int(file.stem[-1])}")
    report = new_dataset("1.2.840.10008.5.1.4.1.1.88.11")
    report.SeriesInstanceUID = "9.9"
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    assert is_scan(folder)
    np.testing.assert_array_equal(read_scan(folder).image[0], volume())


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", volume())
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    assert is_scan(folder)
    np.testing.assert_array_equal(read_scan(folder).image[0], volume())


def time_points(folder: Path) -> None:
    for number in range(3):

        def change(dataset: Any, _k: int, number: int = number) -> None:
            dataset.TemporalPositionIdentifier = number + 1

        write_series(folder, volume(), change, prefix=f"t{number}_")


def cine(folder: Path) -> None:
    write_series(folder, volume(), lambda d, _: setattr(d, "ImagePositionPatient", [0, 0, 0]))


def doubled(folder: Path) -> None:
    write_series(folder, volume())
    shutil.copy(folder / "IM0002.dcm", folder / "zz.dcm")


def missing(folder: Path) -> None:
    write_series(folder, volume())
    (folder / "IM0002.dcm").unlink()


def turning(folder: Path) -> None:
    def change(dataset: Any, k: int) -> None:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(0.04 * k)), float(np.sin(0.04 * k))]

    write_series(folder, volume(), change)


def one(attribute: str, value: Any) -> Callable[[Path], None]:
    def change(dataset: Any, k: int) -> None:
        if k == 3:
            setattr(dataset, attribute, value)
            if attribute == "Rows":
                dataset.PixelData = stored(volume()[:, :4, k])

    return lambda folder: write_series(folder, volume(), change) and None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (time_points, r"3 time points of one volume \(TemporalPositionIdentifier 1, 2, 3\), 5 slices each"),
        (cine, "all 5 slices are at the same position: a cine"),
        (doubled, "6 slices at 5 positions: 1 doubled; IM0002.dcm and zz.dcm"),
        (missing, "1 slice is missing: 6 mm between IM0001.dcm and IM0003.dcm, 3 mm elsewhere"),
        (turning, r"slices rotated against each other: 4 of 5 slices differ in orientation; IM000\d.dcm is rotated by"),
        (one("ImageOrientationPatient", [-1, 0, 0, 0, 1, 0]), "1 of 5 slices differ in orientation; IM0003.dcm"),
        (one("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "planes of several directions: .*IM0003.dcm"),
        (one("PixelSpacing", [1.0, 1.0]), "differ in pixel spacing: IM0003.dcm has 1×1 mm, the others 2×2.5 mm"),
        (one("Rows", 4), "differ in size: IM0003.dcm has 7×4 pixels, the others 7×6 pixels"),
        (one("Modality", "MR"), "differ in modality: IM0003.dcm has MR, the others CT"),
    ],
)
def test_what_is_no_single_volume_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "s")
    for read in (read_scan, read_grid):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "s", case="p1")


def write_enhanced(
    folder: Path, image: Array, order: list[int], change: Callable[[Any, int], None] | None = None
) -> None:
    """An enhanced CT whose frames are in some order, each with its own rescaling."""
    folder.mkdir()
    dataset = new_dataset(pydicom.uid.EnhancedCTImageStorage)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = image.shape[1], image.shape[0], image.shape[2]
    shared, measures, plane = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, k in enumerate(order):
        frame, position, value = (pydicom.Dataset() for _ in range(3))
        position.ImagePositionPatient = [10, 20, 30 + k * SPACING[2]]
        value.RescaleSlope, value.RescaleIntercept = str(1 + k), "-10"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [value]
        if change:
            change(frame, number)
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = b"".join(stored(image[..., k]) for k in order)
    dataset.save_as(folder / "enhanced.dcm", enforce_file_format=True)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_frames_of_an_enhanced_file_give_one_volume_in_any_order(tmp_path: Path, order: list[int]) -> None:
    write_enhanced(tmp_path / "s", volume(), order)
    scan = read_scan(tmp_path / "s")
    np.testing.assert_array_equal(scan.image[0], volume().astype(int) * np.arange(1, 6) - 10)
    np.testing.assert_allclose(scan.grid.affine, [[-2, 0, 0, -10], [0, -2.5, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_an_enhanced_file_with_a_gap_or_several_echoes_is_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "gap", np.delete(volume(), 0, 2), [0, 1, 3, 2])  # positions 0, 1, 3, 2: none missing
    assert read_grid(tmp_path / "gap").shape == (7, 6, 4)

    def echo(frame: Any, number: int) -> None:
        time = pydicom.Dataset()
        time.EffectiveEchoTime = 10.0 + 20 * (number % 2)
        frame.MREchoSequence = [time]
        frame.PlanePositionSequence[0].ImagePositionPatient = [10, 20, 30 + number // 2 * SPACING[2]]

    write_enhanced(tmp_path / "echoes", volume((7, 6, 6)), list(range(6)), echo)
    with pytest.raises(DataError, match=r"2 echo times of one volume \(EchoTime 10.0, 30.0\), 3 slices each"):
        read_scan(tmp_path / "echoes")

    def jump(frame: Any, number: int) -> None:
        frame.PlanePositionSequence[0].ImagePositionPatient = [10, 20, 30 + (number + (number > 2)) * SPACING[2]]

    write_enhanced(tmp_path / "jump", volume(), list(range(5)), jump)
    with pytest.raises(DataError, match="1 slice is missing: 6 mm between frame 3 of enhanced"):
        read_scan(tmp_path / "jump")


@pytest.mark.parametrize("compressor", ["RLE", "JPEG2000", "deflated"])
def test_compressed_pixels_are_read(tmp_path: Path, compressor: str) -> None:
    folder = write_series(tmp_path / "s", volume((16, 12, 3)))
    for file in folder.iterdir():
        if compressor == "JPEG2000":
            _compress_by_gdcm(file)
            continue
        dataset = pydicom.dcmread(file)
        if compressor == "RLE":
            dataset.compress(pydicom.uid.RLELossless)
        else:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(folder).image[0], volume((16, 12, 3)))


def _compress_by_gdcm(file: Path) -> None:
    import SimpleITK as sitk

    text = locale.setlocale(locale.LC_CTYPE)

    header, copy = pydicom.dcmread(file), file.with_suffix(".tmp.dcm")
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.SetFileName(str(copy))
    writer.Execute(sitk.ReadImage(str(file)))
    locale.setlocale(locale.LC_CTYPE, text)  # GDCM sets it to "C" when it compresses
    pixels = pydicom.dcmread(copy)
    copy.unlink()
    assert pixels.file_meta.TransferSyntaxUID.is_compressed
    header.file_meta.TransferSyntaxUID = pixels.file_meta.TransferSyntaxUID
    header.PixelData = pixels.PixelData
    header["PixelData"].is_undefined_length = True
    header.save_as(file, enforce_file_format=True)
