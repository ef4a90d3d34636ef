"""`farvox register`: read and validate two scans and their labels, register them, and write a folder of results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from farvox._atomic import atomic_folder, write_json, writing
from farvox._optional import MissingDependencyError, import_optional
from farvox.errors import DataError, UsageError
from farvox.io import Scan, case_id_from_path
from farvox.io.images_2d import read_image_2d_or_3d, write_image_2d_or_3d
from farvox.labels import LabelTable
from farvox.metrics import Overlap
from farvox.prediction import Predictor
from farvox.progress import Progress
from farvox.registration.api import Registration, read_scan_of, register, require_same_dimension
from farvox.registration.metrics import LabelDice, RegistrationMetrics
from farvox.registration.options import RegisterOptions
from farvox.types import Array, FloatArray, PathLike


@dataclass(frozen=True)
class Pair:
    """Two scans, and label values of either or both on the grid of their scan."""

    fixed: Scan
    moving: Scan
    fixed_labels: Array | None = None
    moving_labels: Array | None = None


@dataclass(frozen=True)
class RegistrationFiles:
    """The files of a registration.

    Args:
        metrics: Content of `metrics.json`, with Dice if both scans have labels.
        files: "moved", "field", "metrics", "labels" and "figure" → path.
        notes: Warnings for the user, one line each.
    """

    metrics: RegistrationMetrics
    files: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def read_pair(
    fixed: PathLike,
    moving: PathLike,
    predictor: Predictor,
    fixed_labels: PathLike | None = None,
    moving_labels: PathLike | None = None,
) -> Pair:
    """Read scans and labels. The files of the channels are found as in `farvox predict`.

    Raises:
        DataError: A file cannot be read, one scan is 2D and the other 3D, or the labels are not integers or not on the
            grid of their scan.
    """
    scans = [read_scan_of(Path(path), predictor) for path in (fixed, moving)]
    require_same_dimension(*scans)
    paths = (None if path is None else Path(path) for path in (fixed_labels, moving_labels))
    labels = [_read_labels(path, scan) for path, scan in zip(paths, scans, strict=True)]
    return Pair(scans[0], scans[1], labels[0], labels[1])


def register_to_folder(
    pair: Pair,
    predictor: Predictor,
    out: PathLike,
    options: RegisterOptions,
    *,
    progress: Progress | bool | None = None,
) -> RegistrationFiles:
    """Register, and write the moved scan, the field, propagated labels, metrics and a figure into a folder.

    The folder receives all files or none. `SimpleITK.DisplacementFieldTransform` of the field (as 64-bit vectors) is
    the transform for `SimpleITK.Resample`.

    Raises:
        UsageError: `out` is a file, or a result would replace one of the scans.
    """
    import SimpleITK as sitk

    out = Path(out)
    suffix = pair.fixed.path.name[len(case_id_from_path(pair.fixed.path)) :] if pair.fixed.path.is_file() else ""
    suffix = suffix or ".nii.gz"
    names = {"moved": f"moved{suffix}", "field": "field.mha", "metrics": "metrics.json", "figure": "figure.png"}
    if pair.moving_labels is not None:
        names["labels"] = f"labels{suffix}"
    _require_writable(out, names.values(), pair)
    registration = register(pair.fixed, pair.moving, predictor, **asdict(options), progress=progress)
    moved = registration.warp_channels(pair.moving.image, pair.moving.grid)
    metrics = registration.metrics
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        dice = _label_dice(registration, pair.fixed_labels, pair.moving_labels, predictor.labels)
        metrics = metrics.model_copy(update={"dice": dice})
    notes = metrics.warnings
    with writing(out), atomic_folder(out) as temporary:
        paths = {what: temporary / name for what, name in names.items()}
        write_image_2d_or_3d(paths["moved"], _in_stored_type(moved, pair.moving.image.dtype), pair.fixed)
        sitk.WriteImage(registration.field_image(), str(paths["field"]), useCompression=True)
        if pair.moving_labels is not None:
            labels = registration.warp_labels(pair.moving_labels)
            write_image_2d_or_3d(paths["labels"], labels[None], pair.fixed, labels=True)
        write_json(paths["metrics"], metrics.model_dump(mode="json"))
        try:
            import_optional("matplotlib", "train")
            figure = registration.show(pair.fixed_labels, pair.moving_labels)
            figure.savefig(paths["figure"], dpi=110, facecolor=figure.get_facecolor(), metadata={"Software": None})
        except MissingDependencyError as error:
            names.pop("figure")
            notes.append(f"no figure: {error}")
    return RegistrationFiles(metrics, {what: out / name for what, name in names.items()}, notes)


def _read_labels(path: Path | None, scan: Scan) -> Array | None:
    if path is None:
        return None
    labels = read_image_2d_or_3d(path)
    if difference := scan.grid.difference_to(labels.grid):
        raise DataError(
            f"{path.name} is not on the grid of {scan.path.name}: {difference} (label against scan)",
            allowed="labels on the grid of their scan",
            hint="resample the labels with nearest-neighbour interpolation, or find the matching files",
        )
    values = labels.image[0]
    if (
        len(labels.image) != 1
        or not np.isfinite(values).all()
        or (values != np.round(values)).any()
        or values.min() < 0
    ):
        raise DataError(f"{path.name} does not contain labels", allowed="one integer of 0 or more in each voxel")
    return np.asarray(values, np.min_scalar_type(int(values.max())))


def _require_writable(out: Path, names: Iterable[str], pair: Pair) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file", allowed="a folder, or a path for a new one")
    for scan in (pair.fixed, pair.moving):
        if any((out / name).resolve() == scan.path.resolve() for name in names):
            raise UsageError(f"{scan.path} would be replaced", hint="use another folder for --out")


def _in_stored_type(moved: FloatArray, dtype: np.dtype[Any]) -> Array:
    """The moved scan in the type of the moving scan if that is an integer, so that HU remain integers."""
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        return moved
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.clip(np.rint(moved), low, high).astype(dtype)


def _label_dice(
    registration: Registration, fixed_labels: Array, moving_labels: Array, table: LabelTable
) -> tuple[LabelDice, ...]:
    """Dice of each label, with the initial translation only and after the registration."""
    before, after = (r.warp_labels(moving_labels) for r in (registration.initial_only, registration))
    names = dict(zip(table.values, table.names, strict=True))
    return tuple(
        LabelDice(
            value=value,
            name=names.get(value, str(value)),
            before=Overlap.of(before == value, fixed_labels == value).dice,
            after=Overlap.of(after == value, fixed_labels == value).dice,
        )
        for value in sorted({*np.unique(fixed_labels).tolist(), *np.unique(moving_labels).tolist()} - {0})
    )
