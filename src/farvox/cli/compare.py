"""`farvox compare`: the same folds with several recipes, or runs that are there already, in one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from farvox.cli import is_out_of_memory_error
from farvox.cli.common import (
    DatasetArgument,
    DeviceOption,
    ImagesOption,
    JsonOption,
    LabelsOption,
    LandmarksOption,
    RadiusOption,
    SkipBadOption,
    TrainCasesOption,
)

if TYPE_CHECKING:
    from farvox.data import CaseCheck, Dataset
    from farvox.data.folds import Fold
    from farvox.recipes import Recipe
    from farvox.runs.schema import Comparison

_SEVERAL = ("--recipes", "--seeds", "--runs")

_REWRITE_SECONDS = 60.0
"""Between two states of a comparison whose recipes are still being trained."""


class Command(TyperCommand):
    """Lets an option take all words up to the next option: `--recipes A B` for `--recipes A --recipes B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click's, on the words spread out."""
        return super().parse_args(ctx, spread(args, _SEVERAL))


def spread(words: Sequence[str], several: Sequence[str]) -> list[str]:
    """Repeat each option of `several` before every word that follows it, up to the next option."""
    out: list[str] = []
    option: str | None = None
    for word in words:
        if word.startswith("-"):
            option = word if word in several else None
            if option is None:
                out.append(word)
        else:
            out += [word] if option is None else [option, word]
    return out


@dataclass(frozen=True)
class _Planned:
    """A run of the comparison: one recipe with one seed, all folds of its split, and those to train."""

    folder: Path
    recipe: Recipe
    split: list[Fold]
    picked: list[Fold]


def run(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for a run of each recipe, and the comparison.", show_default=False)
    ],
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    radius: RadiusOption = None,
    recipes: Annotated[
        list[str] | None, typer.Option("--recipes", metavar="NAME...", help="Shipped recipes' names or TOML files.")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="RUN...", help="Instead of DATASET and --recipes: runs that are there."),
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", help="Parts of the cross-validation; more than cases: leave one out.")
    ] = 5,
    fold: Annotated[
        int | None, typer.Option("--fold", help="This fold alone (0, 1, …); all of them otherwise.")
    ] = None,
    leave_one_out: Annotated[bool, typer.Option("--leave-one-out", help="As many folds as cases.")] = False,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Regular expression; cases whose match agrees (a patient) stay in one fold."),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", metavar="N...", min=0, help="Train each recipe with each seed.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Training time per fold: 45s, 8m, 2h.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the cases instead of a time.")] = None,
    train_cases: TrainCasesOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting for all recipes, section.key=value; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished folds and go on with the rest.")] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train several recipes on the same folds; put quality, cost and significance into one table and report.

    The first recipe is what the others are compared with. The comparison of what is there is written again and
    again, so that a stopped one loses nothing.
    """
    from farvox.errors import UsageError

    if runs:
        if recipes or dataset is not None or images is not None:
            raise UsageError("--runs together with a dataset or --recipes", allowed="one of them")
        _show(_compare(runs, out, strict=True), out, as_json)
        return
    if not recipes:
        raise UsageError("no recipe given", allowed="farvox compare DATASET --recipes A B ... --out DIR, or --runs")
    from farvox.cli.common import open_dataset, stderr
    from farvox.cli.train import duration_settings, validated_cases
    from farvox.devices import resolve_device
    from farvox.models import create_model
    from farvox.preprocessing.planning import validate_recipe
    from farvox.recipes import load_recipe

    changes = [*(settings or []), *duration_settings(budget, epochs)]
    chosen = {_folder_name(name): load_recipe(name, changes) for name in recipes}
    if len(chosen) < len(recipes):
        raise UsageError(f"--recipes {' '.join(recipes)}", allowed="each recipe once, and files of different names")
    resolve_device(device)
    found = open_dataset(dataset, images, labels, landmarks, radius)
    for recipe in chosen.values():
        validate_recipe(recipe)
        create_model(recipe.model.name, len(found.channels), found.labels.classes, **recipe.model.options)
    found, checks = validated_cases(found, skip_bad)
    split = {"folds": folds, "fold": fold, "leave_one_out": leave_one_out, "group": group, "train_cases": train_cases}
    planned = _plan(out, found, checks, chosen, seeds, split)
    _require_fresh(planned, found, resume)
    ids = [case.id for case in found.cases]
    from farvox.comparison import collect_results

    collect_results(
        _folders(out, planned), ids
    )  # what does not belong there is better said now than after the training
    failed: list[str] = []
    # Fold by fold through all recipes, so that what is there can be compared at any time.
    work = [(one, number) for number in range(len(planned[0].picked)) for one in planned]
    written = time.monotonic()
    for one, number in work:
        ended = _train(one, number, found, device, resume)
        if ended == "interrupted":
            _finish(out, planned, ids, [*failed, "stopped before all folds were trained"], as_json)
            raise typer.Exit(1)
        if ended:
            failed.append(ended)
            stderr().print(f"error: {ended}", markup=False)
        if time.monotonic() - written > _REWRITE_SECONDS and (one, number) != work[-1]:
            _finish(out, planned, ids, failed, as_json, show=False)
            written = time.monotonic()
    _finish(out, planned, ids, failed, as_json)
    raise typer.Exit(1 if failed else 0)


def _folder_name(recipe: str) -> str:
    """The name of a recipe's run folder: the recipe's, or its file's without the ending."""
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def _plan(
    out: Path,
    dataset: Dataset,
    checks: list[CaseCheck],
    recipes: dict[str, Recipe],
    seeds: list[int] | None,
    split: dict[str, Any],
) -> list[_Planned]:
    """A run for each recipe and seed, on one split: that of the first recipe's own seed, whatever `seeds` says."""
    from farvox.cli.train import plan_folds
    from farvox.recipes import with_settings

    split_seed = next(iter(recipes.values())).train.seed
    planned = []
    for name, recipe in recipes.items():
        for seed in seeds or (None,):
            made, picked = plan_folds(dataset, checks, split_seed, draw=seed, **split)
            folder = out / (name if seed is None else f"{name}-seed-{seed}")
            own = recipe if seed is None else with_settings(recipe, {"train.seed": seed})
            planned.append(_Planned(folder, own, made, picked))
    return planned


def _require_fresh(planned: Sequence[_Planned], dataset: Dataset, resume: bool) -> None:
    """Before anything is trained: no run with other settings in the way, nothing begun unless it is gone on with."""
    from farvox.errors import UsageError
    from farvox.runs.identity import require_same_run

    for one in planned:
        require_same_run(one.folder, dataset, one.split, one.recipe)
        begun = [fold for fold in one.picked if (one.folder / f"fold-{fold.name}" / "split.json").exists()]
        if begun and not resume:
            raise UsageError(
                f"{one.folder / f'fold-{begun[0].name}'} is there already",
                hint="add --resume to keep what is finished and go on, or choose another --out",
            )


def _train(planned: _Planned, number: int, dataset: Dataset, device: str, resume: bool) -> str | None:
    """Train one fold unless it is done, in a process of its own. None, "interrupted", or why it failed."""
    from farvox.cli.common import stderr
    from farvox.errors import FarvoxError
    from farvox.runs.subprocess import run_in_subprocess
    from farvox.runs.summary import is_complete

    fold = planned.picked[number]
    title = f"{planned.folder.name}, fold {fold.name}"
    stderr().print(f"{title} ({number + 1} of {len(planned.picked)})", markup=False)
    if is_complete(planned.folder, fold):
        stderr().print("is done")
        return None
    try:
        reason = run_in_subprocess(_train_fold, dataset, fold, planned.recipe, planned.folder, device, resume)
    except KeyboardInterrupt:
        return "interrupted"
    except FarvoxError as error:
        return f"{title}: {error}"
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory_error(error):
            raise
        return f"{title}: out of memory"
    return "interrupted" if reason == "interrupted" else None


def _train_fold(dataset: Dataset, fold: Fold, recipe: Recipe, folder: Path, device: str, resume: bool) -> str:
    """Train a fold as `farvox train` does; why the training ended."""
    from farvox.cli.train import train_folds

    summary = train_folds(dataset, [fold], recipe, folder, device=device, resume=resume, quiet=True)
    return str(summary.folds[fold.name].stop_reason)


def _folders(out: Path, planned: Sequence[_Planned]) -> list[Path]:
    """Runs in the folder: those of this command first, then what other calls left there."""
    own = [one.folder for one in planned]
    others = sorted({path.parent.parent for path in out.glob("*/fold-*/split.json")} - set(own))
    return [folder for folder in [*own, *others] if any(folder.glob("fold-*"))]


def _finish(
    out: Path, planned: Sequence[_Planned], ids: Sequence[str], notes: Sequence[str], as_json: bool, show: bool = True
) -> None:
    """Compare what is there; nothing to compare is no error while the work goes on or where it failed."""
    from farvox.cli.common import stderr
    from farvox.errors import UsageError

    try:
        comparison = _compare(_folders(out, planned), out, dataset_cases=ids, notes=notes)
    except UsageError as error:
        if show and not notes:
            raise
        stderr().print(f"no comparison yet: {error}", markup=False)
        return
    if show:
        _show(comparison, out, as_json)


def _compare(folders: Sequence[Path], out: Path, **options: Any) -> Comparison:
    from farvox._optional import import_optional
    from farvox.comparison import compare_runs

    import_optional("matplotlib", "train")
    return compare_runs(folders, out, **options)


def _show(comparison: Comparison, out: Path, as_json: bool) -> None:
    from farvox.cli.common import print_json, stderr, stdout

    for line in comparison.notes:
        stderr().print(f"note: {line}", markup=False)
    if as_json:
        print_json(comparison.model_dump())
        return
    stdout().print(comparison.table())
    stdout().print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)
