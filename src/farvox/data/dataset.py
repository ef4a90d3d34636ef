"""Datasets and their cases: the files of each case, its label, and what the labels and channels mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from farvox.errors import DataError, suggest
from farvox.geometry import Grid, Orient
from farvox.io import read_scan, write_image
from farvox.io.images_2d import ImageLike, as_scan
from farvox.labels import LabelTable
from farvox.types import Array, FloatArray, PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        image: An array (I, J, K) or (C, I, J, K), a nibabel or SimpleITK image, a file, a DICOM folder, or a list of
            one file a channel.
        affine: For arrays: 4×4, voxel index to mm, RAS+.
        label: Label values on the image's grid, as an array (I, J, K), an image or a file; None without label.
    """

    id: str
    image: ImageLike | Sequence[PathLike]
    affine: FloatArray | None = None
    label: ImageLike | None = None

    def show(self, channel: int = 0) -> Figure:
        """As `CasePaths.show`."""
        with TemporaryDirectory() as folder:
            return _case_paths(self, Path(folder)).show(channel)


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

    def show(self, channel: int = 0) -> Figure:
        """A figure of three planes of the scan with the outlines of the labels.

        Args:
            channel: The channel to show, counted from 0.

        Raises:
            DataError: A file of the case cannot be read.
        """
        from farvox.data.load import load_label
        from farvox.figures.overlays import overlay_figure
        from farvox.figures.style import label_colours

        several = len(self.images) > 1
        scan = read_scan(self.images[channel if several else 0], case=self.id)
        orient = Orient.to_canonical(scan.grid)
        labels = np.zeros(scan.grid.shape, np.uint8) if self.label is None else load_label(self, scan.grid)
        colours = label_colours([int(value) for value in np.unique(labels) if value])
        image = orient.apply(scan.image[0 if several else channel])
        return overlay_figure(image, orient.apply(labels), None, orient.target.spacing, colours)


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
        """A dataset of arrays or files; arrays are kept in a temporary folder until the program ends.

        Args:
            cases: The cases; those without label are only predicted.
            labels: Label value → name, background left out.
            channels: Name of each channel; a name with "CT" means Hounsfield units.
            name: Name of the dataset.
            ignore: Label value of voxels that are not annotated.

        Raises:
            DataError: Two cases of one id, or an array without a valid affine.
        """
        folder = Path(mkdtemp(dir=_storage().name))
        every: list[CasePaths] = []
        for case in cases:
            if any(case.id == other.id for other in every):
                raise DataError("two cases of this id", allowed="every case once", case=case.id)
            every.append(_case_paths(case, folder))
        table = LabelTable.from_mapping(labels, ignore)
        labelled = tuple(case for case in every if case.label is not None)
        rest = tuple(case for case in every if case.label is None)
        return cls(name, Path(), labelled, tuple(channels), table, unlabelled=rest)

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
            f"<tr><td>{escape(case.id)}</td><td>{escape(', '.join(path.name for path in case.images))}</td>"
            f"<td>{escape(_label_text(case.label))}</td></tr>"
            for case in self.cases[:20]
        )
        more = f"<p>… and {len(self.cases) - 20} more</p>" if len(self.cases) > 20 else ""
        head = "<tr><th>case</th><th>image</th><th>label</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>{more}"


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory: image (C, I, J, K), classes (I, J, K) uint8 with `labels.IGNORE`, or None, on one grid."""

    id: str
    image: Array
    classes: Array | None
    grid: Grid
    header: Any = field(default=None, compare=False)


@cache
def _storage() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="farvox-cases-")


def _case_paths(case: Case, folder: Path) -> CasePaths:
    """The files of a case; arrays and images in memory are written to a folder."""
    if not case.id or "/" in case.id or "\\" in case.id:
        raise DataError(f"a case with the id '{case.id}'", allowed="a name without slashes")
    image = case.image
    if isinstance(image, str | os.PathLike):
        images = [Path(image)]
    elif isinstance(image, list | tuple):
        images = [Path(path) for path in image]
    else:
        images = [_store(case, image, folder / f"{case.id}_image.nii.gz")]
    if case.label is None or isinstance(case.label, str | os.PathLike):
        return CasePaths(case.id, tuple(images), None if case.label is None else Path(case.label))
    return CasePaths(case.id, tuple(images), _store(case, case.label, folder / f"{case.id}_label.nii.gz"))


def _store(case: Case, values: object, path: Path) -> Path:
    """Write an array or an image in memory as NIfTI and return its path."""
    try:
        scan = as_scan(cast(ImageLike, values), case.affine)
    except DataError as error:
        error.case = case.id
        raise
    image = scan.image
    if image.dtype.kind == "b" or image.dtype in (np.int64, np.uint64, np.float16):
        image = image.astype({"b": np.uint8, "f": np.float32}.get(image.dtype.kind, np.int32))
    write_image(path, image, replace(scan, header=None))
    return path


def _label_text(label: Path | LandmarkSpheres | None) -> str:
    if isinstance(label, LandmarkSpheres):
        return f"{len(label.centres)} landmarks"
    return "–" if label is None else label.name


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
