"""Load one case into memory; an error states in one line why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from farvox.data.dataset import CasePaths, Dataset, LandmarkSpheres, LoadedCase
from farvox.data.landmark_masks import rasterise_landmarks
from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io import read_grid, read_label, read_scan, write_mask
from farvox.io.scan import Scan
from farvox.labels import IGNORE
from farvox.types import Array, PathLike


def load_case(dataset: Dataset, case: CasePaths) -> LoadedCase:
    """Read and check image and label of one case.

    Args:
        dataset: The channels, the label values, and the cases without label.
        case: The files.

    Raises:
        DataError: Missing or damaged files; channels of different grids or wrong number; NaN, infinite or constant
            intensities; a label that is missing, on another grid, holds values beyond the table or nothing at all.
    """
    scan = load_image(dataset, case)
    require_intensities(dataset.channels, scan.image, case.id)
    if case.label is None and case in dataset.unlabelled:
        return LoadedCase(case.id, scan.image, None, scan.grid, scan.header)
    classes = to_classes(dataset, case, load_label(case, scan.grid))
    return LoadedCase(case.id, scan.image, classes, scan.grid, scan.header)


def load_image(dataset: Dataset, case: CasePaths) -> Scan:
    """All channels of a case as one scan, without a check of the intensities."""
    if not case.images:
        raise DataError(
            f"label {_name(case.label)} has no image", hint="add the image or remove the label", case=case.id
        )
    return read_scan_for(dataset.channels, case.images, case.id)


def read_scan_for(channels: Sequence[str], paths: Sequence[PathLike], case: str | None = None) -> Scan:
    """Read one file with all channels, or one file a channel, without a check of the intensities.

    Args:
        channels: Names of the expected channels.
        paths: The files, in the order of the channels.
        case: Id for messages.

    Raises:
        DataError: A file is missing or damaged, the number of channels differs, or the channels are on different grids.
    """
    files = [Path(path) for path in paths]
    if len(files) != 1 and len(files) != len(channels):
        raise _channel_count(channels, len(files), case)
    scans: list[Scan] = []
    for index, path in enumerate(files):
        if not path.exists():
            channel = f" for channel '{channels[index]}'" if len(channels) > 1 and len(files) > 1 else ""
            raise DataError(
                f"no image file {path.name}{channel} in {path.parent}",
                allowed="one file a case and channel",
                hint="add the file or leave the case out",
                case=case,
            )
        scans.append(read_scan(path, case=case))
        if difference := scans[0].grid.difference_to(scans[index].grid):
            raise DataError(
                f"channel '{channels[index]}' ({path.name}) is on another grid than '{channels[0]}': {difference}",
                allowed="all channels on one grid",
                hint="resample the channels to one of them",
                case=case,
            )
    image = scans[0].image if len(scans) == 1 else np.concatenate([scan.image for scan in scans])
    if len(image) != len(channels):
        raise _channel_count(channels, len(image), case)
    notes = tuple(dict.fromkeys(note for scan in scans for note in scan.notes))
    return Scan(image, scans[0].grid, scans[0].path, scans[0].header, notes)


def require_intensities(channels: Sequence[str], image: Array, case: str | None = None) -> None:
    """Check the number of channels of (C, I, J, K), and that each has different, finite intensities.

    Raises:
        DataError: Another number of channels, or a channel with NaN, infinite values, or one value everywhere.
    """
    if len(image) != len(channels):
        raise _channel_count(channels, len(image), case)
    for channel, voxels in zip(channels, image, strict=True):
        low, high = voxels.min(), voxels.max()
        where = f"channel '{channel}'" if len(image) > 1 else "the image"
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(
                f"{where} contains NaN or infinite values",
                allowed="finite intensities",
                hint="replace them (for example with the background's value) or leave the case out",
                case=case,
            )
        if low == high:
            raise DataError(
                f"{where} is constant: every voxel is {low:g}",
                hint="export the image again or leave the case out",
                case=case,
            )


def load_label(case: CasePaths, grid: Grid) -> Array:
    """Raw label values (I, J, K), read from a file on the image's grid, or spheres around landmarks."""
    if isinstance(case.label, LandmarkSpheres):
        return rasterise_landmarks(case.label, grid, case.id)
    if case.label is None or not case.label.exists():
        raise DataError(
            f"no label file {_name(case.label)} in {case.label.parent}" if case.label else "the image has no label",
            allowed="one label a training case",
            hint="add the label or leave the case out",
            case=case.id,
        )
    values, file_grid = read_label(case.label, case=case.id)
    if difference := grid.difference_to(file_grid):
        raise DataError(
            f"label and image do not match: {difference} (label against image)",
            allowed="label on the image's grid",
            hint="resample the label to the image with nearest-neighbour interpolation, or find the right pair",
            case=case.id,
        )
    return values


def to_classes(dataset: Dataset, case: CasePaths, values: Array) -> Array:
    """Raw values → classes (I, J, K) uint8 with `IGNORE`; at least one structure must be there."""
    classes = dataset.labels.to_classes(values, case.id)
    if not np.any((classes > 0) & (classes != IGNORE)):
        raise DataError(
            "the label is empty: no structure, only background",
            allowed="at least one structure a training case",
            hint="annotate the case or leave it out",
            case=case.id,
        )
    return classes


def label_grid(case: CasePaths) -> Grid:
    """Grid of the label of a labelled case, from a header alone."""
    return read_grid(case.label if isinstance(case.label, Path) else case.images[0], case=case.id)


def label_path(case: CasePaths, painted: Path) -> Path:
    """The label file of a labelled case; the spheres of landmarks are written to `painted`."""
    if isinstance(case.label, Path):
        return case.label
    scan = read_scan(case.images[0], case=case.id)
    write_mask(painted, load_label(case, scan.grid), scan)
    return painted


def _channel_count(channels: Sequence[str], count: int, case: str | None) -> DataError:
    return DataError(
        f"the image has {count} channel{'s' * (count != 1)}",
        allowed=f"{len(channels)} ({', '.join(channels)})",
        hint="use one file with all channels, or one file a channel in this order",
        case=case,
    )


def _name(label: Path | LandmarkSpheres | None) -> str:
    return label.name if isinstance(label, Path) else ""
