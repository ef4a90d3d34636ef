"""`summary.json` of a run: the results of its complete folds."""

from __future__ import annotations

from pathlib import Path

import farvox
from farvox.data import Dataset
from farvox.data.folds import Fold
from farvox.evaluation.schema import label_infos
from farvox.evaluation.statistics import summarise
from farvox.recipes import Recipe
from farvox.runs.run import FoldRun, read_result
from farvox.runs.schema import DatasetInfo, FoldSummary, RunSummary


def is_complete(run: Path, fold: Fold) -> bool:
    """Whether a fold of the run has been trained and evaluated."""
    return read_result(run / f"fold-{fold.name}") is not None


def fold_summary(fold: FoldRun) -> FoldSummary:
    """How a fold's training ended, and the mean Dice of its validation cases."""
    result = fold.result.model_dump() if fold.result else {}
    dice = fold.metrics.summary.foreground.dice.mean if fold.metrics else None
    return FoldSummary(**result, cases=len(fold.cases) if fold.metrics else None, dice=dice)


def summarise_run(run: Path, dataset: Dataset, recipe: Recipe) -> RunSummary:
    """Write `summary.json` from all complete folds of the run folder, and return it."""
    folds = [FoldRun.read(folder) for folder in sorted(run.glob("fold-*")) if read_result(folder)]
    cases = [case for fold in folds for case in fold.cases]
    first = next((fold.metrics for fold in folds if fold.metrics), None)
    summary = RunSummary(
        dataset=DatasetInfo(name=dataset.name, cases=len(dataset.cases)),
        recipe=recipe.name,
        version=farvox.__version__,
        folds={fold.name: fold_summary(fold) for fold in folds},
        labels=first.labels if first else (),
        absent_rule=first.absent_rule if first else None,
        tolerance_mm=first.tolerance_mm if first else None,
        summary=summarise(cases, label_infos(dataset.labels)) if first else None,
    )
    summary.write(run / "summary.json")
    return summary
