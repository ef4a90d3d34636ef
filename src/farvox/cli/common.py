"""Options and output that the commands share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farvox.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from farvox.data import Dataset
    from farvox.progress import Progress
    from farvox.runs.run import Run

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="DATASET", help="An MSD, nnU-Net, BraTS or PROMISE12 folder.", show_default=False),
]
ImagesOption = Annotated[
    str | None,
    typer.Option("--images", help="Instead of DATASET: pattern of image files, such as 'scans/*_t2.nii.gz'."),
]
LabelsOption = Annotated[str | None, typer.Option("--labels", help="Pattern of label files; its * match the images'.")]
LandmarksOption = Annotated[
    Path | None,
    typer.Option("--landmarks", help="Instead of labels: CSV file case,landmark,x,y,z of points in mm (RAS+)."),
]
RadiusOption = Annotated[
    float | None, typer.Option("--landmark-radius", help="Radius of the spheres that landmarks are learned as, mm.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
TrainCasesOption = Annotated[
    int | None,
    typer.Option("--train-cases", help="Train each fold on this many of its cases, drawn by the seed."),
]
FoldsOption = Annotated[
    int, typer.Option("--folds", help="Number of folds; more than there are cases means leave-one-out.")
]
FoldOption = Annotated[int | None, typer.Option("--fold", help="Use this fold only (0, 1, ...); all folds otherwise.")]
LeaveOneOutOption = Annotated[bool, typer.Option("--leave-one-out", help="As many folds as cases.")]
GroupOption = Annotated[
    str | None,
    typer.Option("--group", help="Regular expression; cases with the same match (e.g. patient id) stay in one fold."),
]
BudgetOption = Annotated[str | None, typer.Option("--budget", help="Training time per fold: 45s, 8m, 2h.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Passes over the cases instead of a time.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the recipe, section.key=value; may be repeated.")
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave bad cases out instead of stopping.")]


def stderr() -> Console:
    """Console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def stdout() -> Console:
    """Console for results."""
    from rich.console import Console

    return Console(highlight=False)


def print_json(document: Any) -> None:
    """Print the JSON document of a command."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False, default=str))


@contextmanager
def progress_for(as_json: bool = False) -> Iterator[Progress]:
    """Progress on standard error: a bar on a terminal, lines elsewhere."""
    from farvox.progress import ConsoleProgress

    with ConsoleProgress(stderr()) as progress:
        yield progress


def print_run(run: Run, as_json: bool) -> None:
    """Print the metrics of a run and the path of its report, or its summary as JSON."""
    if as_json:
        interrupted = {"interrupted": True} if run.interrupted else {}
        print_json(run.summary.model_dump(mode="json", exclude_none=True) | interrupted)
        return
    if run.statistics:
        stdout().print(run.metrics.table())
    if not run.interrupted:
        stdout().print(f"report: {run.report}", markup=False, soft_wrap=True)


def open_dataset(
    folder: Path | None,
    images: str | None,
    labels: str | None,
    landmarks: Path | None = None,
    radius: float | None = None,
) -> Dataset:
    """The dataset from a folder or from patterns, with its labels or with landmarks instead.

    Raises:
        UsageError: Both or neither were given.
    """
    from farvox.data import read_dataset

    if (folder is None) == (images is None):
        raise UsageError(
            "no dataset given" if folder is None else "both DATASET and --images given",
            allowed="a DATASET folder, or --images and --labels patterns",
        )
    return read_dataset(folder, images=images, labels=labels, landmarks=landmarks, radius=radius)


def split_bundles_and_scans(paths: list[Path], usage: str) -> tuple[list[Path], list[Path]]:
    """Separate the bundle folders, which come first, from the scans.

    Raises:
        UsageError: A bundle after a scan, or no scan; `usage` shows the right command.
    """
    count = next((n for n, path in enumerate(paths) if n and not is_bundle_folder(path)), len(paths))
    bundles, scans = paths[:count], paths[count:]
    late = [path for path in scans if is_bundle_folder(path)]
    if late:
        raise UsageError(f"bundle {late[0]} comes after a scan", allowed="bundles first, then scans")
    if not scans:
        raise UsageError("no scan given", allowed=usage)
    return bundles, scans


def is_bundle_folder(path: Path) -> bool:
    """Whether a folder holds any of the files of a bundle, or is a run with bundles."""
    names = ("manifest.json", "weights.safetensors", "recipe.toml")
    return any((path / name).is_file() for name in names) or any(path.glob("fold-*/bundle/manifest.json"))
