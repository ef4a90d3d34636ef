"""`farvox train`: from a dataset to networks, masks of unseen scans, metrics and a report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from farvox.runs.schema import RunSummary


def run(
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    radius: RadiusOption = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A shipped recipe's name or a TOML file.")] = "default",
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder (default: runs/<dataset>-<recipe>).")
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", help="Parts of the cross-validation; more than cases: leave one out.")
    ] = 5,
    fold: Annotated[
        int | None, typer.Option("--fold", help="Train this fold alone (0, 1, …); all of them otherwise.")
    ] = None,
    leave_one_out: Annotated[bool, typer.Option("--leave-one-out", help="As many folds as cases.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Train one network on all cases, without validation.")
    ] = False,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Regular expression; cases whose match agrees (a patient) stay in one fold."),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Training time per fold: 45s, 8m, 2h.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the cases instead of a time.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, section.key=value; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped or killed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where there is a run already.")] = False,
    train_cases: TrainCasesOption = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs that share each fold.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train on a dataset by cross-validation; predict, evaluate and report each fold's unseen scans.

    Ctrl-C ends after the current step with a usable bundle; --resume goes on, also after a kill.
    """
    from farvox.cli.common import open_dataset, print_json
    from farvox.devices import resolve_device
    from farvox.models import create_model
    from farvox.preprocessing.planning import validate_recipe
    from farvox.recipes import load_recipe
    from farvox.runs.identity import require_same_run

    chosen = load_recipe(recipe, [*(settings or []), *duration_settings(budget, epochs)])
    validate_recipe(chosen)
    resolve_device(device, devices)
    found = open_dataset(dataset, images, labels, landmarks, radius)
    create_model(chosen.model.name, len(found.channels), found.labels.classes, **chosen.model.options)
    run_folder = out or Path("runs") / f"{found.name.replace(' ', '_')}-{chosen.name}"
    found, checks = validated_cases(found, skip_bad)
    planned, picked = plan_folds(
        found,
        checks,
        chosen.train.seed,
        folds,
        fold,
        leave_one_out=leave_one_out,
        everything=everything,
        group=group,
        train_cases=train_cases,
    )
    if overwrite:
        for old in [run_folder / f"fold-{fold}"] if fold is not None else run_folder.glob("fold-*"):
            shutil.rmtree(old, ignore_errors=True)
    require_same_run(run_folder, found, planned, chosen)
    summary = train_folds(
        found, picked, chosen, run_folder, device=device, devices=devices, resume=resume, quiet=as_json
    )
    if as_json:
        print_json(summary.model_dump())
    raise typer.Exit(1 if any(fold.stop_reason == "interrupted" for fold in summary.folds.values()) else 0)


def duration_settings(budget: str | None, epochs: int | None) -> list[str]:
    """`--budget` or `--epochs` as settings of a recipe."""
    from farvox.errors import UsageError

    if budget is not None and epochs is not None:
        raise UsageError("both --budget and --epochs given", allowed="one of them")
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs}", allowed="1 or more")
    by_time = [] if budget is None else [f'train.budget="{budget}"', "train.epochs=0"]
    return by_time if epochs is None else [f"train.epochs={epochs}"]


def train_folds(
    dataset: Dataset,
    folds: list[Fold],
    recipe: Recipe,
    run_folder: Path,
    *,
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
    quiet: bool = False,
) -> RunSummary:
    """Train the folds one after the other, then write summary and report; shared with `farvox demo` and `compare`."""
    from farvox._optional import import_optional
    from farvox.cli.common import stderr, stdout
    from farvox.cli.progress import Watch
    from farvox.devices import reset_peak_memory
    from farvox.report import write_report
    from farvox.runs.schema import FoldSummary
    from farvox.runs.summary import is_complete, summarise_run
    from farvox.training.fold import destroy_process_group, run_fold, setup_fabric

    import_optional("matplotlib", "train")  # for the report: better missed now than after the training
    stopped = None
    fabric = setup_fabric(recipe, device, devices)
    with Watch(stderr(), silent=not fabric.is_global_zero) as watch:
        for one in folds:
            if resume and is_complete(run_folder, one):
                watch.say(f"fold {one.name} is done")
                continue
            validated = f", {len(one.validation)} unseen" if one.validation else ""
            watch.say(f"fold {one.name}: {len(one.training)} cases to train on{validated}; recipe {recipe.name}")
            reset_peak_memory(fabric.device)
            result = run_fold(dataset, one, recipe, run_folder, watch, fabric, resume=resume)
            if result.outcome.stop_reason == "interrupted":
                stopped = result
                break
            if result.metrics:
                mean = result.metrics.summary.foreground.dice.mean
                watch.say(f"fold {one.name}: mean foreground Dice {mean:.3f} on {len(one.validation)} unseen scans")
        destroy_process_group(fabric)
        watch.stage("write report", 0.0)
        summary = summarise_run(run_folder, dataset, recipe)
        if stopped:
            bundle = run_folder / f"fold-{stopped.fold.name}" / "bundle"
            watch.say(
                f"stopped after {stopped.outcome.step} steps; the network so far is in {bundle}; "
                "repeat the command with --resume to go on"
            )
            summary.folds[stopped.fold.name] = FoldSummary(stop_reason="interrupted", step=stopped.outcome.step)
        report = write_report(run_folder) if not stopped else None
    if not quiet:
        if table := summary.table():
            stdout().print(table)
        if report:
            stdout().print(f"report: {report}", markup=False, soft_wrap=True)
    return summary


def validated_cases(dataset: Dataset, skip_bad: bool) -> tuple[Dataset, list[CaseCheck]]:
    """Check all cases before any work; bad ones stop everything, or are left out when the user says so."""
    from dataclasses import replace

    from farvox.cli.check import table
    from farvox.cli.common import check_cases, stderr
    from farvox.data import labels_never_present
    from farvox.errors import DataError

    dataset = replace(dataset, unlabelled=())
    checks = check_cases(dataset)
    bad = [check for check in checks if check.problem]
    if bad and (not skip_bad or len(bad) == len(checks)):
        stderr().print(table(dataset, bad))
        first = f"case {bad[0].id}: {bad[0].problem}"
        raise DataError(
            f"{len(bad)} of {len(checks)} cases cannot be used ({first})",
            hint=bad[0].fix if len(bad) == len(checks) == 1 else "mend them, or leave them out by --skip-bad",
        )
    for check in bad:
        stderr().print(f"left out: case {check.id}: {check.problem}", markup=False)
    sound = [check for check in checks if not check.problem]
    absent = labels_never_present(dataset, sound)
    if absent:
        raise DataError(
            f"label {', '.join(f'{value} ({name})' for value, name in absent)} occurs in no case",
            allowed="each label of the table in at least one case",
            hint="take it out of the label table (dataset.json)",
        )
    names = {check.id for check in sound}
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.id in names)), sound


def plan_folds(
    dataset: Dataset,
    checks: list[CaseCheck],
    seed: int,
    folds: int,
    fold: int | None = None,
    *,
    leave_one_out: bool = False,
    everything: bool = False,
    group: str | None = None,
    train_cases: int | None = None,
    draw: int | None = None,
) -> tuple[list[Fold], list[Fold]]:
    """All folds of the split (and the one of all cases), and those to train.

    `seed` decides the split, and `draw` which training cases are kept where only some are; None takes `seed` for both.
    """
    from farvox.data.folds import all_cases_fold, check_coverage, make_folds, subsample_training_cases
    from farvox.errors import UsageError

    ids = [case.id for case in dataset.cases]
    if everything and (fold is not None or leave_one_out):
        raise UsageError("--all together with --fold or --leave-one-out", allowed="one of them")
    final = all_cases_fold(ids)
    if everything and len(ids) < 2:
        return [final], [final]
    made = make_folds(ids, len(ids) if leave_one_out and len(ids) > 1 else folds, seed, group)
    if train_cases is not None:
        kept = seed if draw is None else draw
        made, final = (
            [subsample_training_cases(one, train_cases, kept) for one in made],
            subsample_training_cases(final, train_cases, kept),
        )
    if fold is not None and not 0 <= fold < len(made):
        raise UsageError(f"--fold {fold}", allowed=f"0 to {len(made) - 1}")
    picked = [final] if everything else made if fold is None else [made[fold]]
    present = {check.id: set(check.labels or ()) for check in checks}
    names = {value: name for _, value, name in dataset.labels.foreground}
    for one in picked:
        check_coverage(one, present, names)
    return [*made, final], picked
