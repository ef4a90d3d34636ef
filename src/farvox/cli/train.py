"""`farvox train`: from a dataset to networks, masks of the validation scans, metrics and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import (
    BudgetOption,
    DatasetArgument,
    DeviceOption,
    EpochsOption,
    FoldOption,
    FoldsOption,
    GroupOption,
    ImagesOption,
    JsonOption,
    LabelsOption,
    LandmarksOption,
    LeaveOneOutOption,
    RadiusOption,
    SettingsOption,
    SkipBadOption,
    TrainCasesOption,
)


def run(
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    landmark_radius: RadiusOption = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a shipped recipe, or a TOML file.")] = "default",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run (default: runs/<dataset>-<recipe>).")
    ] = None,
    folds: FoldsOption = 5,
    fold: FoldOption = None,
    leave_one_out: LeaveOneOutOption = False,
    all_cases: Annotated[
        bool, typer.Option("--all-cases", help="Train one network on all cases, without validation.")
    ] = False,
    group: GroupOption = None,
    budget: BudgetOption = None,
    epochs: EpochsOption = None,
    settings: SettingsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run and start again.")] = False,
    train_cases: TrainCasesOption = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of GPUs that share each fold.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train on a dataset by cross-validation; predict, evaluate and report the validation scans of each fold.

    Ctrl-C stops after the current step and leaves a usable bundle; --resume continues, also after a kill.
    """
    from farvox.cli.common import open_dataset, print_run, progress_for
    from farvox.training.api import resolve_recipe_settings, train

    recipe_settings = resolve_recipe_settings(recipe, settings or (), budget, epochs)
    with progress_for(as_json) as progress:
        result = train(
            open_dataset(dataset, images, labels, landmarks, landmark_radius),
            recipe_settings,
            out=out,
            folds=folds,
            fold=fold,
            leave_one_out=leave_one_out,
            all_cases=all_cases,
            group=group,
            train_cases=train_cases,
            skip_bad=skip_bad,
            resume=resume,
            overwrite=overwrite,
            device=device,
            devices=devices,
            progress=progress,
        )
    print_run(result, as_json)
    raise typer.Exit(1 if result.interrupted else 0)
