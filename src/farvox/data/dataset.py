"""Datasets and their cases: the files of each case, its label, and what the labels and channels mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from farvox.errors import DataError, suggest
from farvox.geometry import Grid
from farvox.io import Scan, write_image
from farvox.labels import LabelTable
from farvox.types import Array, FloatArray, PathLike


@dataclass(frozen=True)
class LandmarkSpheres:
    """Landmarks instead of a label file. When the label is read, each becomes a sphere of its label value.

    Args:
        centres: (label value, landmark, (x, y, z) in mm, RAS+) of each landmark that the case has.
        landmark_radius_mm: Radius of every sphere, mm.
        path: The file the landmarks come from.
    """

    centres: tuple[tuple[int, str, tuple[float, float, float]], ...]
    landmark_radius_mm: float
    path: Path


@dataclass(frozen=True)
class Case:
    """A case given by the user, with arrays or files, for `Dataset.from_cases`.

    Args:
        id: A name that is unique in the dataset.
        image: An array (I, J, K) or (C, I, J, K), a file, a DICOM folder, or a list of one file a channel.
        affine: For an array: 4×4, voxel index to mm, RAS+.
        label: Label values on the image's grid, an array (I, J, K) or a file; None for a case without label.
    """

    id: str
    image: Array | PathLike | Sequence[PathLike]
    affine: FloatArray | None = None
    label: Array | PathLike | None = None


@dataclass(frozen=True)
class CasePaths:
    """Files of one case: one image with all channels or one image a channel, and a label, landmarks or None."""

    id: str
    images: tuple[Path, ...]
    label: Path | LandmarkSpheres | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(Path(image) for image in self.images))
        if isinstance(self.label, str | os.PathLike):
            object.__setattr__(self, "label", Path(self.label))


@dataclass(frozen=True, repr=False)
class Dataset:
    """The cases of a dataset, and what its channels and labels mean.

    A dataset has a length, can be iterated, and returns a case by its id or its index.

    >>> import numpy as np
    >>> image = np.zeros((8, 8, 8), np.int16)
    >>> label = np.zeros((8, 8, 8), np.uint8)
    >>> label[2:5, 2:5, 2:5] = 1
    >>> dataset = Dataset.from_cases([Case("p01", image, np.eye(4), label)], labels={1: "liver"}, channels=["CT"])
    >>> dataset
    Dataset 'cases': 1 case, 1 channel (CT), 1 label (liver)
    >>> dataset["p01"].id
    'p01'
    """

    name: str
    root: Path
    cases: tuple[CasePaths, ...]
    channels: tuple[str, ...]
    labels: LabelTable
    licence: str = ""
    layout: str = ""
    """Which reader understood the folder: msd, nnunet, brats, promise12, pattern, or the name of a registered one."""
    notes: tuple[str, ...] = ()
    """What the reader ignored or decided, one line each."""
    unlabelled: tuple[CasePaths, ...] = ()
    landmark_radius_mm: float | None = None
    """Radius of the spheres that landmarks become, mm; None if labels are files."""
    storage: TemporaryDirectory[str] | None = field(default=None, compare=False)
    """Holds the files of cases that were given as arrays; removed with the dataset."""

    @classmethod
    def from_cases(
        cls,
        cases: Iterable[Case],
        labels: Mapping[int, str],
        channels: Sequence[str] = ("image",),
        *,
        name: str = "cases",
        ignore: int | None = None,
    ) -> Dataset:
        """A dataset of arrays or files.

        Args:
            cases: The cases; those without label are only predicted.
            labels: Label value → name, background left out.
            channels: Name of each channel; a name with "CT" means Hounsfield units.
            name: Name of the dataset.
            ignore: Label value of voxels that are not annotated.

        Raises:
            DataError: Two cases of one id, or an array without a valid affine.
        """
        storage: TemporaryDirectory[str] | None = None
        every: list[CasePaths] = []
        for case in cases:
            if any(case.id == other.id for other in every):
                raise DataError("two cases of this id", allowed="every case once", case=case.id)
            paths: dict[str, Path] = {}
            for role, value in (("image", case.image), ("label", case.label)):
                if value is None or isinstance(value, str | os.PathLike):
                    continue
                if not isinstance(value, np.ndarray):
                    continue
                storage = storage or TemporaryDirectory(prefix="farvox-cases-")
                paths[role] = _store(case, value, Path(storage.name) / f"{case.id}_{role}.nii.gz")
            images = [paths["image"]] if "image" in paths else _path_list(case.image)
            label = paths.get("label") or (None if case.label is None else Path(cast(PathLike, case.label)))
            every.append(CasePaths(case.id, tuple(images), label))
        table = LabelTable.from_mapping(labels, ignore)
        labelled = tuple(case for case in every if case.label is not None)
        rest = tuple(case for case in every if case.label is None)
        return cls(name, Path(), labelled, tuple(channels), table, unlabelled=rest, storage=storage)

    @property
    def cases_by_id(self) -> dict[str, CasePaths]:
        """Labelled cases by their id."""
        return {case.id: case for case in self.cases}

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[CasePaths]:
        return iter(self.cases)

    def __contains__(self, id: object) -> bool:
        return id in self.cases_by_id

    def __getitem__(self, case: str | int) -> CasePaths:
        """A labelled case by its id or its index."""
        if isinstance(case, int):
            return self.cases[case]
        by_id = self.cases_by_id
        if case not in by_id:
            raise KeyError(f"no case '{case}'; {suggest(case, by_id)}")
        return by_id[case]

    def subset(self, ids: Iterable[str]) -> Dataset:
        """The dataset with these cases only, in their order here.

        Raises:
            DataError: An id that the dataset lacks.
        """
        names = set(ids)
        if missing := sorted(names - set(self.cases_by_id)):
            raise DataError("no such case in the dataset", hint=suggest(missing[0], self.cases_by_id), case=missing[0])
        return replace(self, cases=tuple(case for case in self.cases if case.id in names))

    def __repr__(self) -> str:
        names = [name for _, _, name in self.labels.foreground]
        parts = [
            _counted(len(self.cases), "case"),
            f"{_counted(len(self.channels), 'channel')} ({', '.join(self.channels)})",
            f"{_counted(len(names), 'label')} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})",
        ]
        if self.unlabelled:
            parts.insert(1, f"{len(self.unlabelled)} without label")
        return f"Dataset '{self.name}': {', '.join(parts)}"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(case.id)}</td><td>{escape(', '.join(path.name for path in case.images))}</td></tr>"
            for case in self.cases[:20]
        )
        more = f"<p>… and {len(self.cases) - 20} more</p>" if len(self.cases) > 20 else ""
        return f"<p>{escape(repr(self))}</p><table><tr><th>case</th><th>files</th></tr>{rows}</table>{more}"


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory: image (C, I, J, K), classes (I, J, K) uint8 with `labels.IGNORE`, or None, on one grid."""

    id: str
    image: Array
    classes: Array | None
    grid: Grid
    header: Any = field(default=None, compare=False)


def _store(case: Case, values: Array, path: Path) -> Path:
    """Write an array as NIfTI and return its path."""
    if case.affine is None:
        raise DataError(
            "an array without an affine",
            allowed="a 4×4 affine from voxel index to mm (RAS+)",
            hint="give affine=, or np.diag([*spacing_mm, 1]) if the axes point right, anterior and superior",
            case=case.id,
        )
    if values.ndim not in (3, 4):
        raise DataError(f"an array of {values.ndim} dimensions", allowed="(I, J, K) or (C, I, J, K)", case=case.id)
    image = values[None] if values.ndim == 3 else values
    i, j, k = image.shape[1:]
    try:
        grid = Grid((i, j, k), case.affine)
    except DataError as error:
        error.case = case.id
        raise
    if image.dtype.kind == "b" or image.dtype in (np.int64, np.uint64, np.float16):
        image = image.astype(np.float32 if image.dtype.kind == "f" else np.int32)
    write_image(path, image, Scan(image, grid, path))
    return path


def _path_list(image: object) -> list[Path]:
    if isinstance(image, str | os.PathLike):
        return [Path(image)]
    return [Path(path) for path in cast(Sequence[PathLike], image)]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
