"""A folder of DICOM files as one scan: single slices or enhanced multi-frame files, all slices compared.

pydicom reads the headers and all pixels it can decode itself. Pixels that are compressed as JPEG, JPEG-LS or JPEG 2000
are decoded by GDCM, which is part of SimpleITK, so that no further library is needed. GDCM never receives the headers
that change values: it would invert MONOCHROME1 images and apply one slice's rescaling to all.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io.itk import LPS_TO_RAS, to_channels_first
from farvox.io.names import is_dicom
from farvox.types import Array, FloatArray

_TAGS = (
    *("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "Rows", "Columns", "SamplesPerPixel"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "InstanceNumber", "NumberOfFrames", "GantryDetectorTilt"),
    *("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime", "AcquisitionNumber"),
    *("AcquisitionTime", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ImageType"),
)
_SERIES_OF = {
    "TemporalPositionIdentifier": "time points",
    "EchoTime": "echo times",
    "DiffusionBValue": "b-values",
    "TriggerTime": "heart phases",
    "AcquisitionNumber": "acquisitions",
    "AcquisitionTime": "acquisition times",
}
"""Attributes that distinguish slices at one position, the most common first, and a name for their values."""
_FRAME_GROUPS = {
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "AcquisitionTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
}
"""Where an enhanced multi-frame file gives these for each frame."""
_TILT_DEGREES = 0.2
_OTHER_PLANE_DEGREES = 45
_SAME_DIRECTION = 2e-3
_SAME_POSITION = 0.01
"""Fraction of the slice spacing below which two slices are at the same position."""


@dataclass(frozen=True)
class _Slice:
    """One slice: a file, or a frame of one.

    Args:
        path: Its file.
        frame: Its number in the file, from 0.
        position: (3,) mm, LPS+; None where the header has none.
        orientation: (6,) directions of a row and of a column, LPS+; None where the header has none.
        spacing: Distance between rows and between columns, mm.
        size: Rows, columns, values a pixel.
        rescale: Slope and intercept.
        modality: Such as CT.
        series_of: Values that distinguish it from other slices at the same position, by attribute.
        thickness: mm; None where the header has none.
    """

    path: Path
    frame: int
    position: FloatArray | None
    orientation: FloatArray | None
    spacing: tuple[float, float]
    size: tuple[int, int, int]
    rescale: tuple[float, float]
    modality: str
    series_of: dict[str, str]
    thickness: float | None

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name if self.frame < 0 else f"frame {self.frame + 1} of {self.path.name}"


def read(path: Path) -> tuple[Array, Grid, None, tuple[str, ...]]:
    """Image (C, I, J, K) with each slice's own rescaling (HU in CT), grid and notes.

    Values are stored values: MONOCHROME1, which is about display, does not change them.
    """
    slices, grid, notes = _volume(path)
    rows, columns, channels = slices[0].size
    slopes = np.array([slice_.rescale for slice_ in slices])
    pixels = _stored(slices)
    if (slopes == (1, 0)).all():
        first = next(pixels)
        image = np.empty((channels, columns, rows, len(slices)), first.dtype)
        for index, plane in enumerate((first, *pixels)):
            image[..., index] = plane
        return image, grid, None, notes
    whole = bool((slopes == np.round(slopes)).all())
    image = np.empty((channels, columns, rows, len(slices)), np.int32 if whole else np.float32)
    for index, (plane, (slope, intercept)) in enumerate(zip(pixels, slopes, strict=True)):
        image[..., index] = plane.astype(np.float64) * slope + intercept
    if whole and image.min() >= -(2**15) and image.max() < 2**15:
        image = image.astype(np.int16)
    return image, grid, None, notes


def info(path: Path) -> tuple[Grid, int]:
    """Grid and number of channels, from the headers alone."""
    slices, grid, _ = _volume(path)
    return grid, slices[0].size[2]


def read_header(_path: Path) -> None:
    """Masks of a DICOM series need no header."""


def _volume(path: Path) -> tuple[list[_Slice], Grid, tuple[str, ...]]:
    """Slices in the order of their positions, the grid, and notes."""
    slices = list(_slices(path))
    _require_alike(slices)
    first = slices[0]
    notes: list[str] = []
    if first.orientation is None or first.position is None:
        if len(slices) > 1:
            raise DataError(
                f"{first.name} has no {'orientation' if first.orientation is None else 'position'} in its header",
                allowed="ImageOrientationPatient and ImagePositionPatient in every slice",
                hint="export the series again as CT or MR images",
            )
        notes.append("the header has no position or orientation: axes are taken as left, posterior, superior")
        directions, positions = np.array([1.0, 0, 0, 0, 1, 0]), np.zeros((1, 3))
    else:
        directions = np.median([slice_.orientation for slice_ in slices], axis=0)
        positions = np.array([slice_.position for slice_ in slices])
    row, column = (part / np.linalg.norm(part) for part in (directions[:3], directions[3:]))
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[n] for n in order], positions[order]
    step = normal * (first.thickness or 1.0)
    if len(slices) > 1:
        _require_one_stack(slices, positions @ normal)
        _require_even_steps(slices, positions)
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        notes += _notes(first, step, normal)
    rows, columns, _ = first.size
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * first.spacing[1], column * first.spacing[0], step
    lps[:3, 3] = positions[0]
    return slices, Grid((columns, rows, len(slices)), LPS_TO_RAS @ lps), tuple(notes)


def _slices(path: Path) -> Iterator[_Slice]:
    """The slices of the one series in a folder, in no order."""
    series: dict[str, list[tuple[Path, Any]]] = {}
    for file in sorted(entry for entry in path.iterdir() if entry.is_file()):
        if is_dicom(file) and (header := _header(file)) is not None:
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    if not series:
        raise DataError("the folder holds no DICOM images", allowed="a folder with the files of one series")
    if len(series) > 1:
        shown = [
            f"{files[0][1].get('SeriesDescription', '')} {uid} ({len(files)} files)".strip()
            for uid, files in series.items()
        ]
        raise DataError(
            f"the folder holds {len(series)} DICOM series: {', '.join(shown[:6])}{', …' if len(shown) > 6 else ''}",
            allowed="one series a folder",
            hint="move each series into a folder of its own",
        )
    for file, header in next(iter(series.values())):
        if "PerFrameFunctionalGroupsSequence" in header:
            yield from _frames(file, header)
        elif int(header.get("NumberOfFrames", 1) or 1) > 1:
            raise DataError(
                f"{file.name} holds {header.NumberOfFrames} frames without a position for each (a cine or an old "
                "multi-frame format)",
                allowed="single slices, or enhanced multi-frame files",
            )
        else:
            yield _slice(file, header, header, -1)


def _header(path: Path) -> Any:
    """The header of an image; None for other DICOM objects, such as reports."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
    except Exception as error:
        raise DataError(f"{path.name} is damaged: {error}", hint="fetch or export the file again") from None
    return header if "Rows" in header and "Columns" in header else None


def _slice(path: Path, header: Any, values: Any, frame: int) -> _Slice:
    """A slice from the header of its file and the object that holds its own attributes."""

    def numbers(name: str, count: int) -> FloatArray | None:
        value = values.get(name)
        if value is None or isinstance(value, str) or len(value) != count:
            return None
        return np.array([float(number) for number in value])

    def number(name: str, default: float | None) -> float | None:
        value = values.get(name)
        return default if value in (None, "") else float(value)

    spacing = numbers("PixelSpacing", 2)
    if spacing is None:
        raise DataError(f"{path.name} has no pixel spacing", allowed="PixelSpacing in mm", hint="export it again")
    return _Slice(
        path=path,
        frame=frame,
        position=numbers("ImagePositionPatient", 3),
        orientation=numbers("ImageOrientationPatient", 6),
        spacing=(float(spacing[0]), float(spacing[1])),
        size=(int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel", 1) or 1)),
        rescale=(number("RescaleSlope", 1.0) or 1.0, number("RescaleIntercept", 0.0) or 0.0),
        modality=str(header.get("Modality", "")),
        series_of={name: str(values[name].value) for name in _SERIES_OF if name in values},
        thickness=number("SpacingBetweenSlices", None) or number("SliceThickness", None),
    )


def _frames(path: Path, header: Any) -> Iterator[_Slice]:
    """The frames of an enhanced multi-frame file."""
    import pydicom

    shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        values = pydicom.Dataset()
        for groups in (shared[0], frame):
            for sequence in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
                if groups.get(sequence):
                    values.update(groups[sequence].value[0])
            if groups.get("PixelValueTransformationSequence"):
                values.update(groups.PixelValueTransformationSequence[0])
            for name, (sequence, attribute) in _FRAME_GROUPS.items():
                if groups.get(sequence) and attribute in groups[sequence].value[0]:
                    setattr(values, name, groups[sequence].value[0][attribute].value)
        yield _slice(path, header, values, number)


def _require_alike(slices: Sequence[_Slice]) -> None:
    """Raise where a slice differs from the others in what a volume must have in common."""
    for what, key in (
        ("modality", lambda s: s.modality),
        ("size", lambda s: f"{s.size[1]}×{s.size[0]} pixels" + (f" of {s.size[2]} values" if s.size[2] > 1 else "")),
        ("pixel spacing", lambda s: "×".join(f"{mm:.4g}" for mm in s.spacing[::-1]) + " mm"),
    ):
        counts = Counter(key(slice_) for slice_ in slices)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            odd = [slice_ for slice_ in slices if key(slice_) != usual]
            raise DataError(
                f"{len(odd)} of {len(slices)} slices differ in {what}: {odd[0].name} has {key(odd[0])}, the others "
                f"{usual}",
                allowed="one size, pixel spacing and modality in all slices",
                hint="move scouts and other images into another folder",
            )
    oriented = [(slice_, slice_.orientation) for slice_ in slices if slice_.orientation is not None]
    if not oriented:
        return
    if len(oriented) < len(slices):
        named = next(slice_ for slice_ in slices if slice_.orientation is None)
        raise DataError(f"{named.name} has no orientation, other slices have", allowed="an orientation in every slice")
    usual = np.array(Counter(tuple(np.round(directions, 3)) for _, directions in oriented).most_common(1)[0][0])
    odd_ones = [(s, directions) for s, directions in oriented if np.abs(directions - usual).max() > _SAME_DIRECTION]
    if odd_ones:
        widest = max(_angle(directions, usual) for _, directions in odd_ones)
        kind = "planes of several directions" if widest > _OTHER_PLANE_DEGREES else "slices rotated against each other"
        first, directions = odd_ones[0]
        raise DataError(
            f"{kind}: {len(odd_ones)} of {len(slices)} slices differ in orientation; {first.name} is rotated by "
            f"{_angle(directions, usual):.1f}° against the others",
            allowed="parallel slices",
            hint="move each stack of parallel slices into a folder of its own",
        )


def _angle(orientation: FloatArray, other: FloatArray) -> float:
    """The largest angle between the axes of two orientations, degrees."""
    cosines = [float(np.dot(orientation[part], other[part])) for part in (slice(0, 3), slice(3, 6))]
    return float(np.degrees(np.arccos(np.clip(min(cosines), -1, 1))))


def _require_one_stack(slices: Sequence[_Slice], heights: FloatArray) -> None:
    """Raise where several slices are at one position and name the kind of the series."""
    steps = np.diff(heights)
    moved = steps[steps > 1e-4]
    if not len(moved):
        raise DataError(
            f"all {len(slices)} slices are at the same position: a cine or a time series of one slice",
            allowed="one slice at every position of a volume",
            hint="give a folder with one volume",
        )
    same = np.flatnonzero(steps <= _SAME_POSITION * np.median(moved))
    if not len(same):
        return
    first, second = slices[same[0]], slices[same[0] + 1]
    positions = len(slices) - len(same)
    for name, called in _SERIES_OF.items():
        values = {slice_.series_of.get(name) for slice_ in (first, second)}
        every = {slice_.series_of[name] for slice_ in slices if name in slice_.series_of}
        if len(values) > 1 and len(slices) == positions * len(every):
            shown = ", ".join(sorted(every, key=lambda v: (len(v), v))[:6])
            raise DataError(
                f"the series holds {len(every)} {called} of one volume ({name} {shown}), {positions} slices each",
                allowed="one volume a folder",
                hint=f"move the slices of each of the {called} into a folder of its own",
            )
    each = len(slices) / positions
    whole = f"{len(slices)} slices at {positions} positions: " + (
        f"{each:.0f} volumes under one series" if each == int(each) and each > 1 else f"{len(same)} doubled"
    )
    raise DataError(
        f"{whole}; {first.name} and {second.name} are at the same position",
        allowed="one slice at every position",
        hint="move the doubled slices, or each further volume, into another folder",
    )


def _require_even_steps(slices: Sequence[_Slice], positions: FloatArray) -> None:
    """Raise where a slice is missing or the distances between slices differ by more than a tenth."""
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    gaps = np.linalg.norm(steps - usual, axis=1)
    worst = int(gaps.argmax())
    length, widest = float(np.linalg.norm(usual)), float(np.linalg.norm(steps[worst]))
    if gaps[worst] <= 0.1 * length:
        return
    missing = round(widest / length) - 1
    if missing >= 1 and abs(widest / length - missing - 1) < 0.1:
        what = f"{missing} slice{'s are' if missing > 1 else ' is'} missing"
    else:
        what = "slices are unevenly spaced"
    raise DataError(
        f"{what}: {widest:.3g} mm between {slices[worst].name} and {slices[worst + 1].name}, {length:.3g} mm elsewhere",
        allowed="one slice at every step",
        hint="fetch the missing slices, or move doubled ones elsewhere",
    )


def _notes(first: _Slice, step: FloatArray, normal: FloatArray) -> list[str]:
    length = float(np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
    notes = [f"gantry tilt of {tilt:.1f}°: slices are shifted against each other"] if tilt > _TILT_DEGREES else []
    if first.thickness and length > 1.5 * first.thickness:
        notes.append(f"slices are {length:.3g} mm apart and {first.thickness:.3g} mm thick: some may be missing")
    return notes


def _stored(slices: Sequence[_Slice]) -> Iterator[Array]:
    """Stored values (C, I, J) of each slice."""
    file: tuple[Path, Array] | None = None
    for slice_ in slices:
        if file is None or file[0] != slice_.path:
            file = slice_.path, _pixels(slice_.path, slice_.size)  # (frames, rows, columns, values)
        yield file[1][max(slice_.frame, 0)].transpose(2, 1, 0)


def _pixels(path: Path, size: tuple[int, int, int]) -> Array:
    """Stored values (frames, rows, columns, values a pixel) of a file."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

    dataset = pydicom.dcmread(path, force=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "TransferSyntaxUID" in dataset.file_meta else None
    if syntax is None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        if dataset.original_encoding[0] is False:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    elif syntax.is_compressed and syntax not in (RLELossless, DeflatedExplicitVRLittleEndian):
        return _decoded_by_gdcm(dataset, path).reshape(-1, *size)
    try:
        return np.asarray(dataset.pixel_array).reshape(-1, *size)
    except Exception as error:
        name = syntax.name if syntax is not None else "no transfer syntax"
        raise DataError(f"pixels of {path.name} ({name}) cannot be decoded: {error}", hint="export it again") from None


def _decoded_by_gdcm(dataset: Any, path: Path) -> Array:
    import SimpleITK as sitk

    name = dataset.file_meta.TransferSyntaxUID.name
    for attribute in ("RescaleSlope", "RescaleIntercept", "PixelValueTransformationSequence"):
        if attribute in dataset:
            del dataset[attribute]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in dataset.get(sequence, []):
            if "PixelValueTransformationSequence" in groups:
                del groups["PixelValueTransformationSequence"]
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        dataset.PhotometricInterpretation = "MONOCHROME2"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "slice.dcm"
        dataset.save_as(copy)
        try:
            image = sitk.ReadImage(str(copy))
        except RuntimeError:
            raise DataError(
                f"pixels of {path.name} are compressed as {name}, which cannot be decoded here",
                allowed="uncompressed, RLE, deflated, JPEG, JPEG-LS or JPEG 2000",
                hint="export the series uncompressed",
            ) from None
    return np.ascontiguousarray(to_channels_first(image).transpose(3, 2, 1, 0))  # (frames, rows, columns, values)
