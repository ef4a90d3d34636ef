"""Read run folders and group them by recipe."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from farvox.errors import DataError, UsageError
from farvox.evaluation.cases import mean_of_defined
from farvox.evaluation.schema import METRICS, QUALITY_METRICS, CaseMetrics, Metrics, MetricValues, QualityValues
from farvox.runs.run import FoldRun, Run
from farvox.runs.schema import FoldResult

_NAME = re.compile(r"(?P<recipe>.+?)(?:-seed-(?P<seed>\d+))?")


@dataclass(frozen=True)
class CompleteFold:
    """A fold that was trained and evaluated."""

    run: FoldRun
    metrics: Metrics
    result: FoldResult

    @property
    def training_cases(self) -> tuple[str, ...]:
        """Ids of the training cases; empty if they are not recorded."""
        return (self.run.identity.training_cases if self.run.identity else None) or ()


@dataclass(frozen=True)
class RecipeResult:
    """One recipe with all its complete folds.

    Attributes:
        name: Name of its run folders, without `-seed-S`.
        runs: Seed (None if the folder's name has none) → complete folds by name.
    """

    name: str
    runs: dict[int | None, dict[str, CompleteFold]]

    @cached_property
    def folds(self) -> list[CompleteFold]:
        """Every complete fold of every seed."""
        return [fold for run in self.runs.values() for fold in run.values()]

    @cached_property
    def cases(self) -> dict[str, CaseMetrics]:
        """Case id → metrics, averaged over the seeds for which they are defined."""
        by_case: dict[str, list[CaseMetrics]] = {}
        for fold in self.folds:
            for case in fold.metrics.cases:
                by_case.setdefault(case.case, []).append(case)
        return {case: _mean_over_seeds(case, entries) for case, entries in sorted(by_case.items())}

    @cached_property
    def budget(self) -> list[str]:
        """The training duration as set ("8m", "300 epochs"); one entry unless the folds differ."""
        return sorted({_budget_text(fold.run) for fold in self.folds})


def parse_run_name(folder: Path) -> tuple[str, int | None]:
    """Recipe and seed from a run folder's name: `quick-seed-2` → ("quick", 2), `quick` → ("quick", None)."""
    match = _NAME.fullmatch(folder.resolve().name)
    if match is None:
        raise UsageError(f"{folder} has no name", hint="give the run folders names")
    return match["recipe"], None if match["seed"] is None else int(match["seed"])


def collect_results(
    folders: Sequence[Path], dataset_cases: Iterable[str] | None = None
) -> tuple[list[RecipeResult], list[str]]:
    """Read run folders and group them by recipe, in the order given.

    Folders of one name in several parent folders contain folds of one run. Incomplete folds and the fold of all cases
    are left out.

    Args:
        folders: Run folders, each with `fold-N` folders.
        dataset_cases: Ids of the dataset's cases, if the dataset is available.

    Returns:
        The recipes that have a complete fold, and notes on what is missing.

    Raises:
        UsageError: A folder contains no run; two folders contain the same fold; runs of one name differ in settings;
            runs have other labels, or cases that are not in the dataset.
        DataError: The same case was evaluated with another reference.
    """
    runs: dict[str, dict[int | None, dict[str, FoldRun]]] = {}
    notes = []
    for folder in folders:
        name, seed = parse_run_name(folder)
        folds = runs.setdefault(name, {}).setdefault(seed, {})
        for fold in Run.read(folder).folds:
            if fold.name == "all":
                continue
            if fold.name in folds:
                raise UsageError(
                    f"fold {fold.name} of {folder.resolve().name} is in {folds[fold.name].folder.parent} and {folder}",
                    allowed="each fold of a run once",
                )
            folds[fold.name] = fold
    results = []
    for name, by_seed in runs.items():
        _require_one_recipe(name, [fold for folds in by_seed.values() for fold in folds.values()])
        complete: dict[int | None, dict[str, CompleteFold]] = {}
        for seed, folds in by_seed.items():
            complete[seed] = {
                key: CompleteFold(fold, fold.metrics, fold.result)
                for key, fold in folds.items()
                if fold.result and fold.metrics and fold.metrics.cases
            }
            incomplete = [key for key in folds if key not in complete[seed]]
            title = name if seed is None else f"{name}, seed {seed}"
            if incomplete or not folds:
                notes.append(f"{title}: {'fold ' + ', '.join(incomplete) if incomplete else 'no fold'} is not finished")
        complete = {seed: folds for seed, folds in complete.items() if folds}
        if complete:
            results.append(RecipeResult(name, complete))
    _require_one_dataset(results, dataset_cases)
    return results, notes


def _require_one_recipe(name: str, folds: Sequence[FoldRun]) -> None:
    """Runs of one recipe must have the same settings, apart from the seed."""
    settings: dict[tuple[str, ...], FoldRun] = {}
    for fold in folds:
        recipe = fold.identity.recipe if fold.identity else ()
        settings.setdefault(tuple(line for line in recipe if not line.startswith("seed = ")), fold)
    if len(settings) > 1:
        (first, one), (second, other) = list(settings.items())[:2]
        changed = [line for line in second if line not in first]
        raise UsageError(
            f"{one.folder} and {other.folder} are both named {name} and have other settings"
            + (f" ({changed[0]})" if changed else ""),
            allowed="run folders of one name are folds and seeds of one recipe",
            hint="give the folders different names",
        )


def _require_one_dataset(results: Sequence[RecipeResult], dataset_cases: Iterable[str] | None) -> None:
    """Labels, cases and references must be the same in all runs."""
    ids = None if dataset_cases is None else set(dataset_cases)
    folds = [fold for recipe in results for fold in recipe.folds]
    volumes: dict[tuple[str, int], tuple[float, FoldRun]] = {}
    for fold in folds:
        folder = fold.run.folder
        if fold.metrics.labels != folds[0].metrics.labels:
            raise UsageError(
                f"{folds[0].run.folder} and {folder} have different labels",
                allowed="runs on one dataset",
                hint="compare them separately",
            )
        for case in fold.metrics.cases:
            if ids is not None and case.case not in ids:
                raise UsageError(
                    f"{folder} contains case {case.case}, which is not in the dataset",
                    hint="choose another --out for this dataset",
                )
            for label, metrics in case.labels.items():
                volume = metrics.reference_ml or 0.0
                first, other = volumes.setdefault((case.case, label), (volume, fold.run))
                if not np.isclose(volume, first, rtol=1e-6):
                    raise DataError(
                        f"the reference of label {label} has {first:.6g} ml in {other.folder} and {volume:.6g} ml "
                        f"in {folder}",
                        allowed="one reference for each case",
                        hint="evaluate both with the same reference labels",
                        case=case.case,
                    )


def _mean_over_seeds(case: str, entries: Sequence[CaseMetrics]) -> CaseMetrics:
    labels = {
        value: MetricValues(**{m: mean_of_defined(entry.labels[value][m] for entry in entries) for m in METRICS})
        for value in entries[0].labels
    }
    mean = {metric: mean_of_defined(entry.mean[metric] for entry in entries) for metric in QUALITY_METRICS}
    return CaseMetrics(case=case, labels=labels, mean=QualityValues(**mean))


def _budget_text(fold: FoldRun) -> str:
    """The training duration in the bundle's recipe; "?" without a recipe."""
    try:
        train = tomllib.loads(fold.recipe).get("train", {})
    except tomllib.TOMLDecodeError:
        train = {}
    if train.get("epochs"):
        return f"{train['epochs']} epochs"
    clock = " of processor time" if train.get("clock") in ("cpu", "processor") else ""
    return f"{train['budget']}{clock}" if "budget" in train else "?"
