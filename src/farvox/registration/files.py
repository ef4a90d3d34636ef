"""`farvox register` from paths to a folder of results: read and check all, register, write all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from farvox._atomic import atomic_folder, write_json, writing
from farvox._optional import MissingDependencyError, import_optional
from farvox.bundle import Bundle
from farvox.data import Dataset
from farvox.data.load import load_image
from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io import Scan, case_id_from_path
from farvox.io.images_2d import read_image_2d_or_3d, write_image_2d_or_3d
from farvox.io.itk import LPS_TO_RAS, Placement
from farvox.metrics import Overlap
from farvox.prediction.files import find_scans
from farvox.registration.initial import overlap_fraction
from farvox.registration.jacobian import jacobian_determinant, jacobian_statistics
from farvox.registration.registration import RegisterOptions, Registration, register, require_same_dimension
from farvox.types import Array, FloatArray

_MIN_OVERLAP = 0.5
_MAX_FOLDING = 0.01


@dataclass(frozen=True)
class Pair:
    """What was given: two scans, and labels of either or both, on their scans' grids."""

    fixed: Scan
    moving: Scan
    fixed_labels: Array | None = None
    moving_labels: Array | None = None


@dataclass(frozen=True)
class RegistrationResult:
    """What was written.

    Args:
        document: Content of `metrics.json`.
        files: What each file is → its path.
        notes: What a user should know, one line each.
    """

    document: dict[str, Any]
    files: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def read_pair(
    fixed: Path, moving: Path, bundle: Bundle, fixed_labels: Path | None = None, moving_labels: Path | None = None
) -> Pair:
    """Read scans and labels, as `farvox predict` finds a scan's channels.

    Raises:
        DataError: A file that cannot be read, scans of two and three dimensions, labels that are not whole numbers or
            lie on another grid than their scan.
    """
    scans = [_read(path, bundle) for path in (fixed, moving)]
    require_same_dimension(*scans)
    labels = [_labels(path, scan) for path, scan in zip((fixed_labels, moving_labels), scans, strict=True)]
    return Pair(scans[0], scans[1], labels[0], labels[1])


def register_to_folder(
    pair: Pair,
    bundle: Bundle,
    out: Path,
    options: RegisterOptions,
    *,
    device: str = "cpu",
    told: Callable[[float], None] | None = None,
) -> RegistrationResult:
    """Register and write the moved scan, the field, propagated labels, figures of merit and a picture into a folder.

    Nothing is written unless everything could be.

    Raises:
        UsageError: `out` is a file, or holds one of the inputs under a name that would be written.
    """
    suffix = pair.fixed.path.name[len(case_id_from_path(pair.fixed.path)) :] if pair.fixed.path.is_file() else ""
    suffix = suffix or ".nii.gz"
    names = {"moved": f"moved{suffix}", "field": "field.mha", "metrics": "metrics.json", "figure": "figure.png"}
    if pair.moving_labels is not None:
        names["labels"] = f"labels{suffix}"
    _require_writable(out, names.values(), pair)
    found = register(pair.fixed, pair.moving, bundle, options, device=device, told=told)
    moved = found.warp(pair.moving.image, pair.moving.grid)
    labels = None
    if pair.moving_labels is not None:
        before, after = (r.warp_labels(pair.moving_labels, pair.moving.grid) for r in (found.initial_only, found))
        labels = before, after
    document = _document(pair, bundle, options, found, labels)
    notes = _warnings(document)
    with writing(out), atomic_folder(out) as scratch:
        place = {what: scratch / name for what, name in names.items()}
        write_image_2d_or_3d(place["moved"], _as_stored(moved, pair.moving.image.dtype), pair.fixed)
        write_field(place["field"], found.field, found.grid, pair.fixed)
        if labels is not None:
            write_image_2d_or_3d(place["labels"], labels[1][None], pair.fixed, labels=True)
        write_json(place["metrics"], document)
        try:
            import_optional("matplotlib", "train")
            _draw(place["figure"], pair, found, moved, labels)
        except MissingDependencyError as error:
            names.pop("figure")
            notes.append(f"no picture: {error}")
    return RegistrationResult(document, {what: out / name for what, name in names.items()}, notes)


def write_field(path: Path, displacement: FloatArray, grid: Grid, like: Scan) -> None:
    """Write a displacement field as ITK takes one: vectors in mm along left, posterior, superior (x, y in 2D), float32.

    `SimpleITK.DisplacementFieldTransform` of it (as 64-bit vectors) moves points of the fixed scan into the moving
    one, which is what `SimpleITK.Resample` wants.
    """
    import SimpleITK as sitk

    lps = np.moveaxis(displacement, 0, -1) * np.diag(LPS_TO_RAS)[:3].astype(np.float32)  # (I, J, K, 3)
    place = like.header if isinstance(like.header, Placement) else Placement.from_grid(grid)
    flat = len(place.spacing) == 2
    vectors = lps[:, :, 0, :2].swapaxes(0, 1) if flat else lps.swapaxes(0, 2)
    image = sitk.GetImageFromArray(np.ascontiguousarray(vectors, dtype=np.float32), isVector=True)
    image.SetSpacing(place.spacing)
    image.SetOrigin(place.origin)
    image.SetDirection(place.direction)
    sitk.WriteImage(image, str(path), useCompression=True)


def _read(path: Path, bundle: Bundle) -> Scan:
    channels, table = bundle.manifest.preprocessing.channels, bundle.manifest.label_table
    cases = find_scans([path], channels)
    if len(cases) != 1:
        raise DataError(f"{path} holds {len(cases)} scans", allowed="one scan")
    case = cases[0]
    if len(case.images) == 1:
        return read_image_2d_or_3d(case.images[0])
    return load_image(Dataset("scans", Path(), (case,), channels, table), case)


def _labels(path: Path | None, scan: Scan) -> Array | None:
    if path is None:
        return None
    held = read_image_2d_or_3d(path)
    if difference := scan.grid.difference_to(held.grid):
        raise DataError(
            f"{path.name} does not lie on the grid of {scan.path.name}: {difference} (label against scan)",
            allowed="labels on their scan's grid",
            hint="resample the labels with nearest-neighbour interpolation, or find the right pair",
        )
    values = held.image[0]
    if len(held.image) != 1 or not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        raise DataError(f"{path.name} holds no labels", allowed="one whole number of 0 or more a voxel")
    return values.astype(np.min_scalar_type(int(values.max())))


def _require_writable(out: Path, names: Iterable[str], pair: Pair) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file", allowed="a folder, or a path where one can be made")
    for scan in (pair.fixed, pair.moving):
        if any((out / name).resolve() == scan.path.resolve() for name in names):
            raise UsageError(f"{scan.path} would be replaced", hint="give --out a folder of its own")


def _as_stored(moved: FloatArray, dtype: np.dtype[Any]) -> Array:
    """In the moving scan's type where it counts in whole numbers, so that HU stay HU."""
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        return moved
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.clip(np.rint(moved), low, high).astype(dtype)


def _warnings(document: dict[str, Any]) -> list[str]:
    """Why a result may be worthless though nothing failed."""
    doubts = []
    if document["overlap_fraction"] < _MIN_OVERLAP:
        doubts.append(
            f"only {100 * document['overlap_fraction']:.0f} % of the fixed scan lies in the moving one where registration "
            "starts; if that is not so in the patient, try --start centres or --start search"
        )
    if document["jacobian"]["folded"] > _MAX_FOLDING:
        doubts.append(
            f"{100 * document['jacobian']['folded']:.1f} % of the voxels fold, which no body does; "
            "try another --start, or more --smoothness"
        )
    return doubts


def _document(
    pair: Pair, bundle: Bundle, options: RegisterOptions, found: Registration, labels: tuple[Array, Array] | None
) -> dict[str, Any]:
    length = np.sqrt((found.deformation**2).sum(0))
    document: dict[str, Any] = {
        "fixed": str(pair.fixed.path.resolve()),
        "moving": str(pair.moving.path.resolve()),
        "bundle": str(bundle.path),
        "network": bundle.manifest.model.name,
        "options": {name: getattr(options, name) for name in ("features", "start", "iterations", "smoothness")},
        "start_mm": [round(float(mm), 4) for mm in found.start],
        "deformation_mm": {"mean": float(length.mean()), "most": float(length.max())},
        "overlap_fraction": overlap_fraction(found.grid, pair.moving.grid, found.start),
        "jacobian": jacobian_statistics(jacobian_determinant(found.field, found.grid)),
        "feature_distance": [{"before": before, "after": after} for before, after in found.distances],
        "seconds": {part: round(seconds, 3) for part, seconds in found.seconds.items()},
    }
    if labels is not None and pair.fixed_labels is not None and pair.moving_labels is not None:
        before, after = labels
        table = bundle.manifest.label_table
        known = dict(zip(table.values, table.names, strict=True))
        values = sorted({*np.unique(pair.fixed_labels).tolist(), *np.unique(pair.moving_labels).tolist()} - {0})
        document["dice"] = [
            {
                "value": value,
                "name": known.get(value, str(value)),
                "before": Overlap.of(before == value, pair.fixed_labels == value).dice,
                "after": Overlap.of(after == value, pair.fixed_labels == value).dice,
            }
            for value in values
        ]
    return document


def _draw(path: Path, pair: Pair, found: Registration, moved: FloatArray, labels: tuple[Array, Array] | None) -> None:
    from farvox.registration.figure import registration_figure

    covered = np.ones(pair.moving.grid.shape, np.uint8)
    figure = registration_figure(
        pair.fixed.image[0],
        found.initial_only.warp(pair.moving.image[:1], pair.moving.grid)[0],
        moved[0],
        found.deformation,
        pair.fixed.grid,
        inside=found.warp_labels(covered, pair.moving.grid).astype(bool),
        fixed_labels=pair.fixed_labels,
        labels=labels,
    )
    figure.savefig(path, dpi=110, facecolor=figure.get_facecolor(), metadata={"Software": None})
