"""Which runs are compared: their folders read, seeds of one recipe put together, cases that do not match found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from farvox.errors import DataError, UsageError
from farvox.evaluation.cases import METRICS, QUALITY_METRICS, mean_of_defined
from farvox.runs.run import Fold, RunFiles

_NAME = re.compile(r"(?P<recipe>.+?)(?:-seed-(?P<seed>\d+))?")


@dataclass(frozen=True)
class RecipeResult:
    """One recipe with all its finished folds.

    Args:
        name: Of its run folders, without `-seed-S`.
        runs: Seed (None where the folder names none) → finished folds with validated cases, by name.
    """

    name: str
    runs: dict[int | None, dict[str, Fold]]

    @cached_property
    def folds(self) -> list[Fold]:
        """Every finished fold of every seed."""
        return [fold for run in self.runs.values() for fold in run.values()]

    @cached_property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Case id → `{"case", "labels", "mean"}` with each figure averaged over the seeds where it is defined."""
        found: dict[str, list[dict[str, Any]]] = {}
        for fold in self.folds:
            for entry in fold.metrics["cases"]:
                found.setdefault(entry["case"], []).append(entry)
        return {case: _mean_over_seeds(case, entries) for case, entries in sorted(found.items())}

    @cached_property
    def length(self) -> list[str]:
        """How long the folds were trained, as asked for ("8m", "300 epochs"); one entry unless they differ."""
        return sorted({_length(fold) for fold in self.folds})


def parse_run_name(folder: Path) -> tuple[str, int | None]:
    """Recipe and seed that a run folder's name stands for: `quick-seed-2` → ("quick", 2), `quick` → ("quick", None)."""
    match = _NAME.fullmatch(folder.resolve().name)
    if match is None:
        raise UsageError(f"{folder} has no name", hint="name the folders of runs")
    return match["recipe"], None if match["seed"] is None else int(match["seed"])


def collect_results(
    folders: Sequence[Path], known: Iterable[str] | None = None
) -> tuple[list[RecipeResult], list[str]]:
    """Read run folders and put them together by recipe, in the order given.

    Folders of one name in several places hold folds of one run. Folds that are not finished, and the fold of all
    cases, are left out.

    Args:
        folders: Run folders, each with `fold-N` folders.
        known: Ids of the dataset's cases, where there is a dataset at hand.

    Returns:
        The recipes that have a finished fold, and notes on what is missing.

    Raises:
        UsageError: A folder holds no run; the same fold stands in two of them; runs of one name differ in settings;
            runs have other labels, or cases that are not in the dataset.
        DataError: The same case was evaluated with another reference.
    """
    runs: dict[str, dict[int | None, dict[str, Fold]]] = {}
    notes = []
    for folder in folders:
        name, seed = parse_run_name(folder)
        folds = runs.setdefault(name, {}).setdefault(seed, {})
        for fold in RunFiles.read(folder).folds:
            if fold.name == "all":
                continue
            if fold.name in folds:
                raise UsageError(
                    f"fold {fold.name} of {folder.resolve().name} is in {folds[fold.name].folder.parent} and {folder}",
                    allowed="each fold of a run once",
                )
            folds[fold.name] = fold
    compared = []
    for name, by_seed in runs.items():
        _require_one_recipe(name, [fold for folds in by_seed.values() for fold in folds.values()])
        finished: dict[int | None, dict[str, Fold]] = {}
        for seed, folds in by_seed.items():
            finished[seed] = {key: fold for key, fold in folds.items() if fold.done and fold.metrics.get("cases")}
            left = [key for key in folds if key not in finished[seed]]
            title = name if seed is None else f"{name}, seed {seed}"
            if left or not folds:
                notes.append(f"{title}: {'fold ' + ', '.join(left) if left else 'no fold'} is not finished")
        finished = {seed: folds for seed, folds in finished.items() if folds}
        if finished:
            compared.append(RecipeResult(name, finished))
    _require_one_dataset(compared, known)
    return compared, notes


def _require_one_recipe(name: str, folds: Sequence[Fold]) -> None:
    """Runs that count as one must have been set up alike, apart from the seed."""
    settings: dict[tuple[str, ...], Fold] = {}
    for fold in folds:
        lines = tuple(line for line in fold.split.get("recipe", []) if not line.startswith("seed = "))
        settings.setdefault(lines, fold)
    if len(settings) > 1:
        (first, one), (second, other) = list(settings.items())[:2]
        changed = [line for line in second if line not in first]
        raise UsageError(
            f"{one.folder} and {other.folder} are both named {name} and have other settings"
            + (f" ({changed[0]})" if changed else ""),
            allowed="run folders of one name are folds and seeds of one recipe",
            hint="give the folders different names",
        )


def _require_one_dataset(compared: Sequence[RecipeResult], known: Iterable[str] | None) -> None:
    """Labels, cases and references must be the same everywhere."""
    ids = None if known is None else set(known)
    first: Fold | None = None
    volumes: dict[tuple[str, str], tuple[float, Fold]] = {}
    for recipe in compared:
        for fold in recipe.folds:
            first = first or fold
            if fold.metrics["labels"] != first.metrics["labels"]:
                raise UsageError(
                    f"{first.folder} and {fold.folder} have different labels",
                    allowed="runs on one dataset",
                    hint="compare them apart",
                )
            for entry in fold.metrics["cases"]:
                if ids is not None and entry["case"] not in ids:
                    raise UsageError(
                        f"{fold.folder} holds case {entry['case']}, which is not in the dataset",
                        hint="choose another --out for this dataset",
                    )
                for label, figures in entry["labels"].items():
                    volume = figures["reference_ml"]
                    before, where = volumes.setdefault((entry["case"], label), (volume, fold))
                    if not np.isclose(volume, before, rtol=1e-6):
                        raise DataError(
                            f"the reference of label {label} has {before:.6g} ml in {where.folder} and {volume:.6g} ml "
                            f"in {fold.folder}",
                            allowed="one reference a case",
                            hint="evaluate both with the same reference labels",
                            case=entry["case"],
                        )


def _mean_over_seeds(case: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    labels = entries[0]["labels"]
    return {
        "case": case,
        "labels": {v: {m: mean_of_defined(e["labels"][v][m] for e in entries) for m in METRICS} for v in labels},
        "mean": {metric: mean_of_defined(e["mean"][metric] for e in entries) for metric in QUALITY_METRICS},
    }


def _length(fold: Fold) -> str:
    """The length asked for, from the bundle's recipe; "?" when that is missing."""
    try:
        train = tomllib.loads(fold.recipe).get("train", {})
    except tomllib.TOMLDecodeError:
        train = {}
    if train.get("epochs"):
        return f"{train['epochs']} epochs"
    clock = " of processor time" if train.get("clock") == "processor" else ""
    return f"{train['budget']}{clock}" if "budget" in train else "?"
