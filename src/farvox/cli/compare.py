"""`farvox compare`: train several recipes on the same folds, or compare existing runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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

_SEVERAL = ("--recipes", "--seeds", "--runs")


class Command(TyperCommand):
    """Command whose options take all words up to the next option: `--recipes A B` is `--recipes A --recipes B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after the expansion of these options."""
        return super().parse_args(ctx, expand_multi_value_options(args, _SEVERAL))


def expand_multi_value_options(words: Sequence[str], several: Sequence[str]) -> list[str]:
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


def run(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for a run of each recipe, and the comparison.", show_default=False)
    ],
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    landmark_radius: RadiusOption = None,
    recipes: Annotated[
        list[str] | None, typer.Option("--recipes", metavar="NAME...", help="Names of shipped recipes, or TOML files.")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="RUN...", help="Existing runs, instead of DATASET and --recipes."),
    ] = None,
    folds: FoldsOption = 5,
    fold: FoldOption = None,
    leave_one_out: LeaveOneOutOption = False,
    group: GroupOption = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", metavar="N...", min=0, help="Train each recipe with each seed.")
    ] = None,
    budget: BudgetOption = None,
    epochs: EpochsOption = None,
    train_cases: TrainCasesOption = None,
    settings: SettingsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished folds and continue with the others.")] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train several recipes on the same folds, and compare quality, cost and significance in a table and a report.

    The first recipe is the baseline. The comparison is rewritten during training, so it can be interrupted.
    """
    from farvox.cli.common import open_dataset, print_json, progress_for, stderr, stdout
    from farvox.comparison.api import compare

    has_dataset = dataset is not None or images is not None or not runs
    with progress_for(as_json) as progress:
        comparison = compare(
            open_dataset(dataset, images, labels, landmarks, landmark_radius) if has_dataset else None,
            recipes or (),
            runs=runs,
            out=out,
            folds=folds,
            fold=fold,
            leave_one_out=leave_one_out,
            group=group,
            seeds=seeds,
            budget=budget,
            epochs=epochs,
            train_cases=train_cases,
            settings=settings or (),
            resume=resume,
            skip_bad=skip_bad,
            device=device,
            progress=progress,
        )
    for line in comparison.notes:
        stderr().print(f"note: {line}", markup=False)
    if as_json:
        print_json(comparison.model_dump())
    else:
        stdout().print(comparison.table())
        stdout().print(f"report: {comparison.report}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if comparison.failed else 0)
