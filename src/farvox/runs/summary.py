"""`summary.json` of a run, made anew from the folds that are finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import farvox
from farvox._atomic import read_json, write_json
from farvox.data import Dataset
from farvox.data.folds import Fold
from farvox.evaluation import summarise
from farvox.recipes import Recipe


def is_complete(run: Path, fold: Fold) -> bool:
    """Whether a fold of the run has been trained and evaluated."""
    return (run / f"fold-{fold.name}" / "done.json").exists()


def summarise_run(run: Path, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Write `summary.json` from all folds finished so far, wherever they were trained, and return it."""
    folds, cases, first = {}, [], None
    for done in sorted(run.glob("fold-*/done.json")):
        facts = read_json(done)
        metrics_path = done.parent / "metrics.json"
        metrics = read_json(metrics_path) if metrics_path.exists() else None
        entry = {key: facts[key] for key in ("seconds", "peak_memory_mb", "parameters", "reason")}
        if metrics:
            first = first or metrics
            cases += metrics["cases"]
            entry |= {
                "cases": len(metrics["cases"]),
                "dice": metrics["summary"]["foreground"]["dice"]["mean"],
            }
        folds[done.parent.name.removeprefix("fold-")] = entry
    summary: dict[str, Any] = {
        "format": "farvox-run/1",
        "dataset": {"name": dataset.name, "cases": len(dataset.cases)},
        "recipe": recipe.name,
        "version": farvox.__version__,
        "folds": folds,
    }
    if first:
        summary |= {key: first[key] for key in ("labels", "rule", "tolerance_mm")}
        summary["summary"] = summarise(cases, dataset.labels)
    write_json(run / "summary.json", summary)
    return summary
