"""Understand a dataset folder: the layouts there are, tried in a fixed order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from farvox.data.dataset import Dataset
from farvox.data.landmarks import with_landmarks
from farvox.data.readers import brats, msd, nnunet, pattern, promise12
from farvox.errors import DataError, UsageError
from farvox.io.landmarks import read_landmarks

__all__ = ["read_dataset"]

_READERS = {"nnunet": nnunet, "msd": msd, "brats": brats, "promise12": promise12}
"""Each has `matches(root)` and `read(root)`; nnU-Net stands before MSD because its files look like MSD's."""


def read_dataset(
    root: Path | None,
    *,
    images: str | None = None,
    labels: str | None = None,
    landmarks: Path | None = None,
    landmark_radius_mm: float | None = None,
) -> Dataset:
    """Find the cases of a dataset. Files are listed, not opened (patterns without labels.json: labels are).

    Args:
        root: Folder in MSD, nnU-Net raw, BraTS or PROMISE12 layout; with patterns, what they are relative to.
        images: Pattern such as 'scans/*_img.nii.gz'.
        labels: Pattern with as many '*'; image and label belong together when their '*' stand for the same.
        landmarks: CSV file of points that stand in place of labels; see `farvox.data.landmarks`.
        landmark_radius_mm: Of the balls that landmarks become, mm; None suits it to the scans.

    Returns:
        The dataset. A fault of a single case (missing file, missing label) is left to `load_case` and `check_dataset`.

    Raises:
        DataError: No such folder, unreadable, in no known layout, faulty dataset.json, two cases of one id, or
            landmarks that cannot be used.
        UsageError: Patterns that cannot work, or landmarks and labels together.
    """
    root = None if root is None else Path(root)
    if landmarks is not None and labels is not None:
        raise UsageError("both labels and landmarks given", allowed="one of them")
    points = None if landmarks is None else read_landmarks(landmarks)
    try:
        if images is None and labels is None:
            dataset = _read_folder(root)
        elif images is not None and points is not None:
            dataset = pattern.read_unlabelled(root, images)
        else:
            dataset = pattern.read(root, images, labels)
    except OSError as error:
        found = f"{error.filename or root} cannot be read: {error.strerror}"
        raise DataError(found, hint="check the rights of the folder") from error
    for cases in (dataset.cases, dataset.unlabelled):
        doubled = [id for id, count in Counter(case.id for case in cases).items() if count > 1]
        if doubled:
            paths = ", ".join(str(case.images[0]) for case in cases if case.id == doubled[0] and case.images)
            raise DataError(
                f"two cases of this id: {paths}",
                allowed="every case once",
                hint="rename or remove one, or delete the second entry in dataset.json",
                case=doubled[0],
            )
    return dataset if points is None else with_landmarks(dataset, points, landmark_radius_mm)


def _read_folder(root: Path | None) -> Dataset:
    if root is None:
        raise UsageError("no dataset", hint="give a dataset folder, or --images and --labels")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", hint="give the folder of a dataset, or --images and --labels")
    for reader in _READERS.values():
        if reader.matches(root):
            return reader.read(root)
    held = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(held[:6]) + (", …" if len(held) > 6 else "") if held else "nothing"
    below = next((folder.parent for folder in sorted(root.glob("*/dataset.json"))), None)
    raise DataError(
        f"{root} is in no known dataset layout; it holds {shown}",
        allowed="MSD or nnU-Net (dataset.json), BraTS (a folder a case), PROMISE12 (CaseNN.mhd)",
        hint=f"give {below}" if below else "give the folder that holds dataset.json, or --images and --labels",
    )
