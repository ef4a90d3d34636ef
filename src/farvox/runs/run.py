"""A run folder: its files, read once. Missing files leave gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from farvox._tables import table_html
from farvox.errors import FarvoxError, UsageError
from farvox.evaluation.schema import CaseMetrics, Document, LabelInfo, Metrics, MetricSummary
from farvox.evaluation.statistics import summarise
from farvox.runs.identity import read_identity
from farvox.runs.schema import (
    BundleInfo,
    EndEvent,
    EpochEvent,
    FoldIdentity,
    FoldResult,
    LogEvent,
    RunSummary,
    StartEvent,
    ValidationEvent,
    read_log,
)
from farvox.types import Array, FloatArray, PathLike

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_Document = TypeVar("_Document", bound=Document)


@dataclass(frozen=True)
class FoldRun:
    """The files of one `fold-N` folder.

    Attributes:
        name: Name of the fold: a number as text, or "all".
        folder: The folder.
        log: Events of `log.jsonl` in the order written; empty without a log.
        metrics: `metrics.json`; None if no case was validated.
        recipe: Text of the bundle's `recipe.toml`, or "".
        manifest: The bundle's `manifest.json`; None without a bundle.
        identity: `split.json`.
        result: `result.json`; None until the fold is complete.
    """

    name: str
    folder: Path
    log: tuple[LogEvent, ...] = ()
    metrics: Metrics | None = None
    recipe: str = ""
    manifest: BundleInfo | None = None
    identity: FoldIdentity | None = None
    result: FoldResult | None = None

    @classmethod
    def read(cls, folder: Path) -> FoldRun:
        """Read a `fold-N` folder.

        Raises:
            FarvoxError: A file is not JSON or has unexpected content.
        """
        recipe = folder / "bundle" / "recipe.toml"
        return cls(
            name=folder.name.removeprefix("fold-"),
            folder=folder,
            log=read_log(folder / "log.jsonl"),
            metrics=_read(Metrics, folder / "metrics.json"),
            recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
            manifest=_read(BundleInfo, folder / "bundle" / "manifest.json"),
            identity=read_identity(folder / "split.json") if (folder / "split.json").exists() else None,
            result=read_result(folder),
        )

    @property
    def bundle(self) -> Path:
        """Folder of the trained network."""
        return self.folder / "bundle"

    @property
    def cases(self) -> tuple[CaseMetrics, ...]:
        """Metrics of the validated cases."""
        return self.metrics.cases if self.metrics else ()

    @property
    def start(self) -> StartEvent:
        """The last start event of the log; an empty one if there is none."""
        return next((e for e in reversed(self.log) if isinstance(e, StartEvent)), StartEvent())

    @property
    def end(self) -> EndEvent | None:
        """The last end event of the log."""
        return next((e for e in reversed(self.log) if isinstance(e, EndEvent)), None)

    @property
    def loss_curve(self) -> tuple[list[float], list[float]]:
        """Minutes of training and training loss; NaN where undefined."""
        return _curve([(event.seconds, event.loss) for event in self.log if isinstance(event, EpochEvent)])

    @property
    def validation_curve(self) -> tuple[list[float], list[float]]:
        """Minutes of training and mean validation Dice; NaN where undefined."""
        return _curve([(event.seconds, event.mean) for event in self.log if isinstance(event, ValidationEvent)])

    @property
    def end_point(self) -> tuple[float, float] | None:
        """Minutes of training and mean foreground Dice of a complete fold."""
        dice = self.metrics.summary.foreground.dice.mean if self.metrics else None
        seconds = self.result.seconds if self.result else None
        return None if dice is None or seconds is None else (seconds / 60, dice)


@dataclass(frozen=True)
class CaseArrays:
    """A validated scan in RAS+ order.

    Attributes:
        image: First channel, (I, J, K).
        reference: Label values, (I, J, K).
        prediction: Label values, (I, J, K).
        spacing: Voxel spacing, mm, (3,).
    """

    image: Array
    reference: Array
    prediction: Array
    spacing: FloatArray

    def figure(self, colours: Mapping[int, str]) -> Figure:
        """Outlines of reference and prediction over three planes of the scan; label value → colour."""
        from farvox.figures.overlays import overlay_figure

        return overlay_figure(self.image, self.reference, self.prediction, self.spacing, colours)


@dataclass(frozen=True)
class CaseResult:
    """A validated case and its fold."""

    fold: FoldRun
    metrics: CaseMetrics

    @property
    def id(self) -> str:
        """Case id."""
        return self.metrics.case

    def value(self, metric: str, label: int | None = None) -> float | None:
        """A metric of one label, or of the mean over labels; None if undefined."""
        if label is None:
            return self.metrics.mean[metric]
        return self.metrics.labels[label][metric] if label in self.metrics.labels else None

    def file(self, role: str) -> Path | None:
        """Current path of the "scan", "reference" or "prediction"; None if it is not recorded or does not exist.

        Recorded paths are absolute, or relative to the fold's folder or the current one. A prediction is also found
        after its run was moved.
        """
        recorded: str | None = getattr(self.metrics, role)
        if not recorded:
            return None
        candidates = [self.fold.folder / recorded, Path(recorded)]
        if role == "prediction":
            candidates.append(self.fold.folder / "predictions" / Path(recorded).name)
        return next((path for path in candidates if path.exists()), None)

    def load(self) -> CaseArrays:
        """Read the scan, its reference and its prediction.

        Raises:
            FarvoxError: A file is missing or damaged, or the grids differ.
        """
        from farvox.geometry import Orient
        from farvox.io import read_label, read_scan

        scan = read_scan(self._existing("scan"))
        arrays: list[Array] = [scan.image[0]]
        for role in ("reference", "prediction"):
            values, grid = read_label(self._existing(role))
            if difference := scan.grid.difference_to(grid):
                raise FarvoxError(f"{role} and scan have different grids ({difference})")
            arrays.append(values)
        orient = Orient.to_canonical(scan.grid)
        image, reference, prediction = (np.asarray(orient.apply(array)) for array in arrays)
        return CaseArrays(image, reference, prediction, orient.target.spacing)

    def _existing(self, role: str) -> Path:
        path, recorded = self.file(role), getattr(self.metrics, role)
        if path is None:
            raise FarvoxError(f"the {role} is no longer at {recorded}" if recorded else f"metrics.json names no {role}")
        return path


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder: the result of `farvox.train`.

    Attributes:
        path: The folder.
        folds: Its folds, in order.
        summary: `summary.json`; empty until the first fold is complete.
        interrupted: Whether the training that returned this run was interrupted.
    """

    path: Path
    folds: tuple[FoldRun, ...]
    summary: RunSummary = field(default_factory=RunSummary)
    interrupted: bool = False

    @classmethod
    def read(cls, path: PathLike) -> Run:
        """Read a run folder.

        Raises:
            UsageError: The folder contains neither a `summary.json` nor a `fold-N` folder.
            FarvoxError: A file is not JSON or has unexpected content.
        """
        path = Path(path)
        folders = sorted((folder for folder in path.glob("fold-*") if folder.is_dir()), key=_numbers_first)
        summary = _read(RunSummary, path / "summary.json")
        if not folders and not summary:
            raise UsageError(
                f"{path} contains no run",
                allowed="a folder with summary.json and fold-N folders",
                hint="give the folder that was passed to `farvox train --out`",
            )
        return cls(path, tuple(FoldRun.read(folder) for folder in folders), summary or RunSummary())

    def fold(self, name: str) -> FoldRun:
        """The fold of a name, such as "0" or "all"."""
        return next(fold for fold in self.folds if fold.name == name)

    @property
    def report(self) -> Path:
        """Path of the HTML report."""
        return self.path / "report.html"

    @property
    def cases(self) -> list[CaseResult]:
        """Every validated case of every fold."""
        return [CaseResult(fold, metrics) for fold in self.folds for metrics in fold.cases]

    @property
    def statistics(self) -> MetricSummary | None:
        """Statistics over all cases as in `summary.json`, or those of the only fold; None if there are none."""
        if self.summary.summary and self.summary.summary.labels:
            return self.summary.summary
        only = self.folds[0].metrics if len(self.folds) == 1 else None
        return only.summary if only else None

    @property
    def labels(self) -> tuple[LabelInfo, ...]:
        """The foreground labels."""
        return next((document.labels for document in self._documents() if document.labels), ())

    @property
    def tolerance_mm(self) -> float | None:
        """Tolerance of surface Dice, mm."""
        return next(
            (document.tolerance_mm for document in self._documents() if document.tolerance_mm is not None), None
        )

    @property
    def absent_rule(self) -> str | None:
        """How absent structures are counted."""
        return next((document.absent_rule for document in self._documents() if document.absent_rule), None)

    @property
    def metrics(self) -> Metrics:
        """Metrics of the validated cases of all folds."""
        cases = tuple(case for fold in self.folds for case in fold.cases)
        documents = [fold.metrics for fold in self.folds if fold.metrics]
        return Metrics(
            absent_rule=self.absent_rule or "",
            tolerance_mm=self.tolerance_mm,
            labels=self.labels,
            cases=cases,
            failed=tuple(failure for document in documents for failure in document.failed),
            notes=tuple(dict.fromkeys(note for document in documents for note in document.notes)),
            summary=self.statistics or summarise(cases, self.labels),
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas data frame with one row per validated case and label."""
        return self.metrics.to_dataframe()

    def worst_median_best(self) -> dict[str, CaseResult]:
        """The worst, median and best case by mean Dice; without the median for two cases, "only" for one.

        For an even number of cases the median is the lower one.
        """
        defined = [case for case in self.cases if case.value("dice") is not None]
        ranked = sorted(defined, key=lambda case: (case.value("dice") or 0.0, case.id))
        if len(ranked) < 2:
            return {"only": ranked[0]} if ranked else {}
        median = {"median": ranked[(len(ranked) - 1) // 2]} if len(ranked) > 2 else {}
        return {"worst": ranked[0], **median, "best": ranked[-1]}

    def show(self, case: str = "worst") -> Figure:
        """A figure of a validated case: outlines of reference and prediction over the scan, in three planes.

        Args:
            case: "worst", "median" or "best" by mean Dice, or a case id.

        Raises:
            UsageError: There is no such case.
            FarvoxError: A file of the case is missing.
        """
        from farvox.figures.style import label_colours

        ranked = self.worst_median_best()
        lowest = {name: result for name in ("worst", "median", "best") for result in list(ranked.values())[:1]}
        results = {result.id: result for result in self.cases} | lowest | ranked
        if case not in results:
            raise UsageError(f"no validated case {case}", allowed="worst, median, best or the id of a validated case")
        return results[case].load().figure(label_colours([label.value for label in self.labels]))

    def plot_learning_curve(self) -> Figure | None:
        """A figure of training loss and validation Dice of each fold; None without logs."""
        from farvox.figures.curves import learning_curves

        losses = {fold.name: fold.loss_curve for fold in self.folds}
        return learning_curves(losses, {fold.name: fold.validation_curve for fold in self.folds})

    def __repr__(self) -> str:
        complete = sum(fold.result is not None for fold in self.folds)
        dice = self.metrics.summary.foreground.dice.mean
        quality = "" if dice is None else f", mean foreground Dice {dice:.3f} on {len(self.cases)} cases"
        return f"<Run {self.path}: {complete} of {len(self.folds)} folds complete{quality}>"

    def _repr_html_(self) -> str:
        return table_html(self.metrics.table())

    def _documents(self) -> list[RunSummary | Metrics]:
        return [self.summary, *(fold.metrics for fold in self.folds if fold.metrics)]


def read_result(folder: Path) -> FoldResult | None:
    """`result.json` of a fold's folder (`done.json` in runs of version 1); None until the fold is complete."""
    return _read(FoldResult, folder / "result.json") or _read(FoldResult, folder / "done.json")


def _curve(points: list[tuple[float, float | None]]) -> tuple[list[float], list[float]]:
    return [s / 60 for s, _ in points], [float("nan") if value is None else value for _, value in points]


def _numbers_first(folder: Path) -> tuple[bool, int, str]:
    name = folder.name.removeprefix("fold-")
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def _read(kind: type[_Document], path: Path) -> _Document | None:
    return kind.read(path) if path.exists() else None
