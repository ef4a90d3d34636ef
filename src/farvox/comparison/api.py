"""`farvox.compare`: train several recipes on the same folds and compare them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farvox._optional import import_optional
from farvox.comparison import compare_runs
from farvox.comparison.collect import collect_results
from farvox.errors import FarvoxError, UsageError, is_out_of_memory
from farvox.progress import NullProgress, Progress, resolve_progress
from farvox.recipes import Recipe, with_settings
from farvox.runs.schema import Comparison
from farvox.types import PathLike

if TYPE_CHECKING:
    from farvox.data import Dataset
    from farvox.data.folds import Fold

_REWRITE_SECONDS = 60.0
"""Interval at which the comparison is rewritten during training."""

_INTERRUPTED = "stopped before all folds were trained"


@dataclass(frozen=True)
class PlannedRun:
    """A run of the comparison: one recipe with one seed.

    Attributes:
        folder: The run's folder.
        recipe: The recipe with its seed.
        split: All folds of the split.
        folds: The folds to train.
    """

    folder: Path
    recipe: Recipe
    split: Sequence[Fold]
    folds: Sequence[Fold]


def compare(
    dataset: Dataset | PathLike | None = None,
    recipes: Sequence[Recipe | PathLike] = (),
    *,
    runs: Sequence[PathLike] | None = None,
    out: PathLike,
    folds: int = 5,
    fold: int | None = None,
    leave_one_out: bool = False,
    group: str | None = None,
    seeds: Sequence[int] | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    train_cases: int | None = None,
    settings: Mapping[str, object] | Iterable[str] = (),
    resume: bool = False,
    skip_bad: bool = False,
    device: str = "auto",
    progress: Progress | bool | None = None,
) -> Comparison:
    """Compare recipes: train each on the same folds, or use existing runs.

    The recipes take turns fold by fold, and each fold is trained in a separate process. The comparison is rewritten
    during training, so an interrupted one can be used and resumed. The first recipe is the baseline of the others.

    Args:
        dataset: The dataset, or its folder.
        recipes: Recipes, names of shipped recipes, or TOML files.
        runs: Existing run folders, instead of `dataset` and `recipes`.
        out: Folder for a run of each recipe, `comparison.json`, `comparison.csv` and `report.html`.
        folds: Number of folds; more than there are cases means leave-one-out.
        fold: Train this fold only.
        leave_one_out: Use as many folds as cases.
        group: Regular expression; cases with the same match (e.g. patient id) stay in one fold.
        seeds: Train each recipe with each of these seeds.
        budget: Training time per fold, such as "8m".
        epochs: Number of epochs, instead of a time.
        train_cases: Train each fold on this many of its cases only.
        settings: Settings for all recipes: "section.key" → value, or "section.key=value" strings.
        resume: Keep finished folds and continue with the others.
        skip_bad: Leave out cases that cannot be used, instead of raising an error.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: Receives the progress; see `farvox.progress.resolve_progress`.

    Returns:
        The comparison. Folds that failed are listed in `failed`.

    Raises:
        UsageError: Contradictory arguments, folds of other settings in `out`, or existing folds without `resume`.
        DataError: The dataset cannot be used.
        FarvoxError: No fold could be trained.
    """
    import_optional("matplotlib", "train")  # for the report; checked before the training
    folder, reporter = Path(out), resolve_progress(progress)
    if runs is not None:
        if recipes or dataset is not None:
            raise UsageError("runs together with a dataset or recipes", allowed="one of them")
        return compare_runs([Path(run) for run in runs], folder, strict=True)
    if dataset is None:
        raise UsageError("no dataset", allowed="a dataset and recipes, or runs")
    if not recipes:
        raise UsageError("no recipe", allowed="at least one recipe, or runs")
    from farvox.data import Dataset, read_dataset
    from farvox.data.folds import plan_folds
    from farvox.devices import resolve_device
    from farvox.models import create_model
    from farvox.training.api import temporary_cache, usable_cases

    named = _load_recipes(recipes, settings, budget, epochs)
    resolve_device(device)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(Path(dataset))
    for recipe in named.values():
        create_model(recipe.model.name, len(data.channels), data.labels.classes, **recipe.model.options)
    with temporary_cache(folder, data, reporter) as cache:
        checked = usable_cases(data, skip_bad, reporter, cache)
        split_seed = next(iter(named.values())).train.seed
        planned = []
        for name, recipe in named.items():
            for seed in seeds or (None,):
                split, selected = plan_folds(
                    checked.dataset,
                    checked.labels_by_case,
                    split_seed,
                    folds,
                    fold,
                    leave_one_out=leave_one_out,
                    group=group,
                    train_cases=train_cases,
                    subset_seed=seed,
                )
                run = folder / (name if seed is None else f"{name}-seed-{seed}")
                seeded = recipe if seed is None else with_settings(recipe, {"train.seed": seed})
                planned.append(PlannedRun(run, seeded, split, selected))
        _require_new_or_resume(planned, checked.dataset, resume)
        return _Training(planned, checked.dataset, folder, device, resume, reporter).run()


def _load_recipes(
    recipes: Sequence[Recipe | PathLike],
    settings: Mapping[str, object] | Iterable[str],
    budget: str | None,
    epochs: int | None,
) -> dict[str, Recipe]:
    """Name of the run folder → recipe."""
    from farvox.training.api import resolve_recipe_settings

    settings = settings if isinstance(settings, Mapping) else tuple(settings)
    named: dict[str, Recipe] = {}
    for recipe in [recipes] if isinstance(recipes, str) else recipes:
        label = recipe.name if isinstance(recipe, Recipe) else str(recipe)
        name = Path(label).stem if label.endswith(".toml") else label
        if name in named:
            raise UsageError(f"recipe {name} twice", allowed="each recipe once, and files of different names")
        named[name] = resolve_recipe_settings(recipe, settings, budget, epochs)
    return named


def _require_new_or_resume(planned: Sequence[PlannedRun], dataset: Dataset, resume: bool) -> None:
    """Check before the training that existing folds belong to the planned runs, and are to be resumed."""
    from farvox.runs.identity import require_same_run

    for run in planned:
        require_same_run(run.folder, dataset, run.split, run.recipe)
        existing = [fold for fold in run.folds if (run.folder / f"fold-{fold.name}" / "split.json").exists()]
        if existing and not resume:
            raise UsageError(
                f"{run.folder / f'fold-{existing[0].name}'} exists already",
                hint="use --resume (resume=True) to keep finished folds and continue, or choose another folder",
            )


@dataclass(frozen=True)
class _Training:
    """The training of all planned runs, and the comparison of what is finished."""

    planned: Sequence[PlannedRun]
    dataset: Dataset
    out: Path
    device: str
    resume: bool
    progress: Progress

    def run(self) -> Comparison:
        cases = [case.id for case in self.dataset.cases]
        collect_results(self._folders(), cases)  # refuses runs that cannot be compared before the training
        failed: list[str] = []
        written = time.monotonic()
        # All recipes fold by fold, so that they can be compared at any time.
        for number in range(len(self.planned[0].folds)):
            for run in self.planned:
                error = self._train(run, number)
                if error:
                    failed.append(error)
                    self.progress.message(f"error: {error}")
                if error == _INTERRUPTED:
                    return self._compare(cases, failed)
                if time.monotonic() - written > _REWRITE_SECONDS:
                    try:
                        self._compare(cases, failed)
                    except UsageError as nothing_yet:
                        self.progress.message(f"no comparison yet: {nothing_yet}")
                    written = time.monotonic()
        return self._compare(cases, failed)

    def _train(self, run: PlannedRun, number: int) -> str | None:
        """Train one fold in a separate process unless it is complete; the reason if it failed."""
        from farvox.runs.subprocess import run_in_subprocess
        from farvox.runs.summary import is_complete

        fold = run.folds[number]
        title = f"{run.folder.name}, fold {fold.name}"
        self.progress.message(f"{title} ({number + 1} of {len(run.folds)})")
        if is_complete(run.folder, fold):
            self.progress.message("already complete")
            return None
        show = not isinstance(self.progress, NullProgress)
        try:
            reason = run_in_subprocess(
                _train_fold,
                self.dataset,
                fold,
                run.recipe,
                run.folder,
                self.device,
                self.resume,
                show,
                self.out / "cache",
                number == len(run.folds) - 1,
            )
        except KeyboardInterrupt:
            return _INTERRUPTED
        except FarvoxError as error:
            return f"{title}: {error}"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return f"{title}: out of memory"
        return _INTERRUPTED if reason == "interrupted" else None

    def _folders(self) -> list[Path]:
        """Run folders in `out`: the planned ones first, then those of earlier calls."""
        planned = [run.folder for run in self.planned]
        others = sorted({path.parent.parent for path in self.out.glob("*/fold-*/split.json")} - set(planned))
        return [folder for folder in [*planned, *others] if any(folder.glob("fold-*"))]

    def _compare(self, cases: Sequence[str], failed: Sequence[str]) -> Comparison:
        try:
            return compare_runs(self._folders(), self.out, dataset_cases=cases, failed=failed)
        except UsageError as error:
            if failed:
                raise FarvoxError(f"no comparison: {failed[0]}", hint=error.hint) from error
            raise


def _train_fold(
    dataset: Dataset,
    fold: Fold,
    recipe: Recipe,
    folder: Path,
    device: str,
    resume: bool,
    show: bool,
    cache: Path,
    report: bool,
) -> str | None:
    """Train a fold as `farvox.train` does; "interrupted" if it was."""
    from farvox.preprocessing.cache import CaseCache
    from farvox.training.api import train_folds

    progress = resolve_progress(show)
    cases = CaseCache(cache, dataset, progress)
    run = train_folds(
        dataset, [fold], recipe, folder, device, resume=resume, cache=cases, report=report, progress=progress
    )
    return "interrupted" if run.interrupted else None
