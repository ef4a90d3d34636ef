"""Look at every case of a dataset before any training: what it is, what is wrong with it, what would mend it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from farvox.data import load
from farvox.data.dataset import CasePaths, Dataset
from farvox.errors import FarvoxError
from farvox.io.scan import Scan
from farvox.labels import IGNORE
from farvox.types import Array

_THICK = 3.0
"""Ratio of largest to smallest spacing from which on a note is due."""


@dataclass
class CaseCheck:
    """What is known of a case; fields after a problem stay None."""

    id: str
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    """mm along each voxel axis."""
    axcodes: str | None = None
    dtype: str | None = None
    intensities: tuple[float, float] | None = None
    """Smallest and largest, all channels together; None when one is not finite."""
    labels: tuple[int, ...] | None = None
    """Label values that occur, without background and ignored voxels; None for a case without label."""
    problem: str | None = None
    fix: str | None = None
    notes: tuple[str, ...] = ()


def check_dataset(dataset: Dataset, progress: Callable[[], None] | None = None) -> list[CaseCheck]:
    """Check every case, labelled ones first, then those that need no label; one in memory at a time.

    Args:
        dataset: What to check.
        progress: Called after each case, `len(dataset.cases) + len(dataset.unlabelled)` times.
    """
    checks = []
    for case in (*dataset.cases, *dataset.unlabelled):
        checks.append(_check_case(dataset, case))
        if progress:
            progress()
    return checks


def labels_never_present(dataset: Dataset, checks: Sequence[CaseCheck]) -> list[tuple[int, str]]:
    """(value, name) of the structures in the label table that occur in no case: nothing can be learned of them."""
    present = {value for check in checks for value in check.labels or ()}
    return [(value, name) for _, value, name in dataset.labels.foreground if value not in present]


def _check_case(dataset: Dataset, case: CasePaths) -> CaseCheck:
    check = CaseCheck(case.id)
    try:
        scan = load.load_image(dataset, case)
        _describe(check, scan)
        load.require_intensities(dataset, case, scan.image)
        if case.label is None and case in dataset.unlabelled:
            check.notes += ("no label",)
            return check
        values = load.load_label(case, scan.grid)
        if values.dtype.kind == "f":
            check.notes += (f"label stored as {values.dtype}",)
        check.labels = _present(dataset, load.to_classes(dataset, case, values))
    except FarvoxError as error:
        check.problem = f"{error.found} (expected: {error.allowed})" if error.allowed else error.found
        check.fix = error.hint
    return check


def _describe(check: CaseCheck, scan: Scan) -> None:
    grid = scan.grid
    check.shape, check.axcodes, check.dtype = grid.shape, grid.axcodes, str(scan.image.dtype)
    x, y, z = grid.spacing.tolist()
    check.spacing = (x, y, z)
    low, high = float(scan.image.min()), float(scan.image.max())
    check.intensities = (low, high) if np.isfinite(low) and np.isfinite(high) else None
    if max(x, y, z) > _THICK * min(x, y, z):
        check.notes += (f"spacing {max(x, y, z):.3g} mm is {max(x, y, z) / min(x, y, z):.2g} times the finest axis",)
    if 1 in grid.shape:
        check.notes += ("a single slice",)
    check.notes += scan.notes


def _present(dataset: Dataset, classes: Array) -> tuple[int, ...]:
    return tuple(dataset.labels.values[index] for index in np.unique(classes) if index not in (0, IGNORE))
