"""Readers of dataset folders: the layouts, tried in a fixed order, and registered ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from farvox._plugins import Registry
from farvox.data.dataset import Dataset
from farvox.data.landmarks import with_landmarks
from farvox.data.readers import brats, msd, nnunet, pattern, promise12
from farvox.errors import DataError, UsageError
from farvox.io.landmarks import read_landmarks
from farvox.types import PathLike

__all__ = ["Reader", "read_dataset", "register_reader"]


class Reader(Protocol):
    """Understands one layout of dataset folders; a module or an object with these two functions."""

    def matches(self, root: Path) -> bool:
        """Whether a folder has this layout. Must be fast and must not open scans."""

    def read(self, root: Path) -> Dataset:
        """The dataset in a folder that matches."""


_BUILT_IN: dict[str, Reader] = {"nnunet": nnunet, "msd": msd, "brats": brats, "promise12": promise12}
"""nnU-Net is tried before MSD because its files look like MSD's; readers of plug-ins are tried before all of these."""

_R = TypeVar("_R")


def _checked(name: str, reader: Any) -> Reader:
    """A reader object; a class is created without arguments."""
    reader = reader() if isinstance(reader, type) else reader
    missing = [method for method in ("matches", "read") if not callable(getattr(reader, method, None))]
    if missing:
        raise UsageError(f"reader '{name}' has no {' and no '.join(missing)}", allowed="matches(root) and read(root)")
    return cast(Reader, reader)


_REGISTRY = Registry("reader", "farvox.readers", UsageError, _checked)


def register_reader(name: str) -> Callable[[_R], _R]:
    """Decorator that registers a reader of dataset folders under a name.

    The decorated class is created without arguments, or the decorated object is used as it is. Readers of other
    packages are found by the entry point group `farvox.readers`.

    Args:
        name: Name of the layout.

    Raises:
        UsageError: The name is taken, or the reader lacks `matches` or `read`.

    >>> @register_reader("flat-folder")
    ... class FlatFolder:
    ...     def matches(self, root):
    ...         return (root / "cases.csv").exists()
    ...
    ...     def read(self, root):
    ...         ...
    """

    def register(reader: _R) -> _R:
        if name in _BUILT_IN:
            raise UsageError(f"a reader named '{name}' is registered already", hint="use another name")
        _REGISTRY.add(name, _checked(name, reader))
        return reader

    return register


def _readers() -> Iterator[tuple[str, Reader]]:
    """Readers of plug-ins, then the built-in ones."""
    yield from ((name, _REGISTRY.get(name)) for name in _REGISTRY.names())
    yield from _BUILT_IN.items()


def read_dataset(
    path: PathLike | None = None,
    *,
    images: str | None = None,
    labels: str | None = None,
    landmarks: PathLike | None = None,
    radius: float | None = None,
) -> Dataset:
    """Find the cases of a dataset. Files are listed, not opened (patterns without labels.json: labels are).

    Args:
        path: Folder in MSD, nnU-Net raw, BraTS or PROMISE12 layout; with patterns, what they are relative to.
        images: Pattern such as 'scans/*_img.nii.gz'.
        labels: Pattern with as many `*`; image and label belong together when their `*` match the same text.
        landmarks: CSV file of points that are used instead of labels; see `farvox.data.landmarks`.
        radius: Radius of the spheres that landmarks become, mm; None chooses one that suits the scans.

    Returns:
        The dataset. A fault of a single case (missing file, missing label) is left to `load_case` and `check`.

    Raises:
        DataError: No such folder, unreadable, in no known layout, faulty dataset.json, two cases of one id, or
            landmarks that cannot be used.
        UsageError: Patterns that cannot work, or landmarks and labels together.
    """
    root = None if path is None else Path(path)
    if radius is not None and landmarks is None:
        raise UsageError("a landmark radius without landmarks", hint="give the CSV file of landmarks, too")
    if landmarks is not None and labels is not None:
        raise UsageError("both labels and landmarks given", allowed="one of them")
    points = None if landmarks is None else read_landmarks(Path(landmarks))
    try:
        if images is None and labels is None:
            dataset = _read_folder(root)
        elif images is not None and points is not None:
            dataset = pattern.read_unlabelled(root, images)
        else:
            dataset = pattern.read(root, images, labels)
    except OSError as error:
        message = f"{error.filename or root} cannot be read: {error.strerror}"
        raise DataError(message, hint="check the rights of the folder") from error
    for cases in (dataset.cases, dataset.unlabelled):
        duplicates = [id for id, count in Counter(case.id for case in cases).items() if count > 1]
        if duplicates:
            paths = ", ".join(str(case.images[0]) for case in cases if case.id == duplicates[0] and case.images)
            raise DataError(
                f"two cases of this id: {paths}",
                allowed="every case once",
                hint="rename or remove one, or delete the second entry in dataset.json",
                case=duplicates[0],
            )
    return dataset if points is None else with_landmarks(dataset, points, radius)


def _read_folder(root: Path | None) -> Dataset:
    if root is None:
        raise UsageError("no dataset", hint="give a dataset folder, or patterns of images and labels")
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder", hint="give the folder of a dataset, or patterns of images and labels"
        )
    for name, reader in _readers():
        if reader.matches(root):
            dataset = reader.read(root)
            if not isinstance(dataset, Dataset):
                raise UsageError(f"reader '{name}' returned a {type(dataset).__name__}", allowed="a farvox.Dataset")
            return dataset
    entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(entries[:6]) + (", …" if len(entries) > 6 else "") if entries else "nothing"
    below = next((folder.parent for folder in sorted(root.glob("*/dataset.json"))), None)
    raise DataError(
        f"{root} is in no known dataset layout; it holds {shown}",
        allowed="MSD or nnU-Net (dataset.json), BraTS (a folder a case), PROMISE12 (CaseNN.mhd)",
        hint=f"give {below}"
        if below
        else "give the folder that contains dataset.json, or patterns of images and labels",
    )
