"""Check every case of a dataset before any training: what it is, what is wrong with it, how to fix it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from farvox._tables import data_frame, table_html
from farvox.data import load
from farvox.data.dataset import CasePaths, Dataset, LoadedCase
from farvox.errors import DataError, FarvoxError
from farvox.io.scan import Scan
from farvox.labels import IGNORE
from farvox.progress import Progress, resolve_progress
from farvox.types import Array

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

_THICK = 3.0
"""Ratio of largest to smallest spacing from which a note is made."""


@dataclass
class CaseCheck:
    """What is known about a case. Fields that could not be read because of an error are None."""

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
    error: str | None = None
    hint: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Check:
    """What `farvox.check` found out about a dataset.

    Args:
        dataset: The dataset that was checked.
        cases: One entry a case, labelled ones first.
    """

    dataset: Dataset
    cases: tuple[CaseCheck, ...]

    @property
    def problems(self) -> list[CaseCheck]:
        """The cases that cannot be used."""
        return [case for case in self.cases if case.error]

    @property
    def labels_never_present(self) -> list[tuple[int, str]]:
        """(value, name) of the labels that occur in no case: nothing can be learned of them."""
        present = {value for case in self.cases for value in case.labels or ()}
        return [(value, name) for _, value, name in self.dataset.labels.foreground if value not in present]

    @property
    def labels_by_case(self) -> dict[str, set[int]]:
        """Label values that occur in each case."""
        return {case.id: set(case.labels or ()) for case in self.cases}

    def raise_for_problems(self) -> None:
        """Raise an error that names the first case that cannot be used.

        Raises:
            DataError: A case cannot be used.
        """
        bad = self.problems
        if bad:
            only = len(bad) == len(self.cases) == 1
            raise DataError(
                f"{len(bad)} of {len(self.cases)} cases cannot be used (case {bad[0].id}: {bad[0].error})",
                hint=bad[0].hint if only else "fix them, or leave them out (skip_bad, --skip-bad)",
            )

    def usable(self, skip_bad: bool = False) -> Check:
        """The check without the cases that cannot be used for training.

        Args:
            skip_bad: Leave those cases out; otherwise they are an error.

        Raises:
            DataError: A case cannot be used and `skip_bad` is not set, no case can be used, or a label of the table
                occurs in no case.
        """
        if not skip_bad or len(self.problems) == len(self.cases):
            self.raise_for_problems()
        names = {case.id for case in self.cases if not case.error}
        cases = tuple(case for case in self.dataset.cases if case.id in names)
        dataset = replace(self.dataset, cases=cases, unlabelled=())
        labelled = {case.id for case in cases}
        check = Check(dataset, tuple(case for case in self.cases if case.id in labelled))
        if absent := check.labels_never_present:
            raise DataError(
                f"label {', '.join(f'{value} ({name})' for value, name in absent)} occurs in no case",
                allowed="each label of the table in at least one case",
                hint="remove it from the label table (dataset.json)",
            )
        return check

    def to_dict(self) -> dict[str, object]:
        """The check as plain values, the JSON document of `farvox check --json`."""
        return {
            "dataset": self.dataset.name,
            "layout": self.dataset.layout,
            "channels": list(self.dataset.channels),
            "labels": dict(zip(self.dataset.labels.values, self.dataset.labels.names, strict=True)),
            "notes": list(self.dataset.notes),
            "labels_in_no_case": [{"value": value, "name": name} for value, name in self.labels_never_present],
            "cases": [asdict(case) for case in self.cases],
            "bad": len(self.problems),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a case (needs pandas)."""
        return data_frame(asdict(case) for case in self.cases)

    def table(self, only_problems: bool = False) -> Table:
        """One row a case, those with errors first.

        Args:
            only_problems: Leave out the cases that can be used.
        """
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("case", "voxels", "mm", "axes", "type", "range", "labels"):
            table.add_column(name, no_wrap=name in ("case", "voxels", "mm"), overflow="ellipsis")
        table.add_column("remarks", ratio=1)
        count = len(self.dataset.labels.foreground)
        for case in sorted(self.problems if only_problems else self.cases, key=lambda c: (not c.error, not c.notes)):
            labels = "–" if case.labels is None else " ".join(map(str, case.labels))
            if case.labels is not None and count > 6:
                labels = f"{len(case.labels)} of {count}"
            remarks = escape("; ".join(case.notes))
            if case.error:
                hint = f" [dim]→ {escape(case.hint)}[/dim]" if case.hint else ""
                remarks = f"[red]{escape(case.error)}[/red]{hint}"
            table.add_row(
                escape(case.id),
                "×".join(map(str, case.shape)) if case.shape else "–",
                "×".join(f"{s:.3g}" for s in case.spacing) if case.spacing else "–",
                case.axcodes or "–",
                case.dtype or "–",
                "{:.4g} … {:.4g}".format(*case.intensities) if case.intensities else "–",
                labels,
                remarks,
            )
        return table

    def __repr__(self) -> str:
        bad = len(self.problems)
        return f"Check of {self.dataset.name}: " + (
            f"{bad} of {len(self.cases)} cases need fixing" if bad else f"all {len(self.cases)} cases are fine"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{table_html(self.table())}"


def check(
    dataset: Dataset,
    *,
    progress: Progress | bool | None = None,
    on_case: Callable[[CasePaths, LoadedCase], None] | None = None,
) -> Check:
    """Read every case of a dataset and report what is wrong with it; one case is in memory at a time.

    Args:
        dataset: What to check.
        progress: Receives the progress; see `farvox.Progress`.
        on_case: Receives every labelled case that can be used, while it is in memory.
    """
    reporter = resolve_progress(progress)
    every = (*dataset.cases, *dataset.unlabelled)
    checks = []
    for number, case in enumerate(every, start=1):
        checks.append(_check_case(dataset, case, on_case))
        reporter.update("check cases", number / len(every))
    return Check(dataset, tuple(checks))


def _check_case(
    dataset: Dataset, case: CasePaths, on_case: Callable[[CasePaths, LoadedCase], None] | None
) -> CaseCheck:
    result = CaseCheck(case.id)
    try:
        scan = load.load_image(dataset, case)
        _describe(result, scan)
        load.require_intensities(dataset.channels, scan.image, case.id)
        if case.label is None and case in dataset.unlabelled:
            result.notes += ("no label",)
            return result
        values = load.load_label(case, scan.grid)
        if values.dtype.kind == "f":
            result.notes += (f"label stored as {values.dtype}",)
        classes = load.to_classes(dataset, case, values)
        result.labels = _present(dataset, classes)
        if on_case:
            on_case(case, LoadedCase(case.id, scan.image, classes, scan.grid, scan.header))
    except FarvoxError as error:
        result.error = f"{error.found} (expected: {error.allowed})" if error.allowed else error.found
        result.hint = error.hint
    return result


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
