"""What verbs share: options, output on the right stream, the dataset named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farvox.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from farvox.data import CaseCheck, Dataset

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
    float | None, typer.Option("--radius", help="Of the balls landmarks are learned as, mm (default: suits the scans).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
TrainCasesOption = Annotated[
    int | None,
    typer.Option("--train-cases", help="Train each fold on this many of its cases, drawn by the seed (few scans)."),
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
    """The one JSON document of a verb."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False, default=str))


def open_dataset(
    folder: Path | None,
    images: str | None,
    labels: str | None,
    landmarks: Path | None = None,
    landmark_radius_mm: float | None = None,
) -> Dataset:
    """The dataset a user named by a folder or by patterns, with its labels or with landmarks in their place.

    Raises:
        UsageError: Both or neither were given.
    """
    from farvox.data import read_dataset

    if (folder is None) == (images is None):
        raise UsageError(
            "no dataset given" if folder is None else "both DATASET and --images given",
            allowed="a DATASET folder, or --images and --labels patterns",
        )
    if labels is not None and landmarks is not None:
        raise UsageError("both --labels and --landmarks given", allowed="one of them")
    if landmark_radius_mm is not None and landmarks is None:
        raise UsageError("--radius without --landmarks", hint="give the landmarks' CSV file, too")
    return read_dataset(
        folder, images=images, labels=labels, landmarks=landmarks, landmark_radius_mm=landmark_radius_mm
    )


def split_bundles_and_scans(paths: list[Path], usage: str) -> tuple[list[Path], list[Path]]:
    """Tell bundle folders, which come first, from the scans behind them.

    Raises:
        UsageError: A bundle behind a scan, or no scan; `usage` says what is due.
    """
    count = next((n for n, path in enumerate(paths) if n and not is_bundle_folder(path)), len(paths))
    bundles, scans = paths[:count], paths[count:]
    late = [path for path in scans if is_bundle_folder(path)]
    if late:
        raise UsageError(f"bundle {late[0]} stands after a scan", allowed="bundles first, then scans")
    if not scans:
        raise UsageError("no scan given", allowed=usage)
    return bundles, scans


def is_bundle_folder(path: Path) -> bool:
    """Whether any of a bundle's files is there; a damaged bundle is one, too."""
    return any((path / name).is_file() for name in ("manifest.json", "weights.safetensors", "recipe.toml"))


def check_cases(dataset: Dataset) -> list[CaseCheck]:
    """Check every case, with a progress bar."""
    from rich.progress import track

    from farvox.data import check_dataset

    total = len(dataset.cases) + len(dataset.unlabelled)
    bar = iter(
        track(range(total), "checking scans", console=stderr(), transient=True, disable=not stderr().is_terminal)
    )
    next(bar, None)

    def advance() -> None:
        next(bar, None)

    return check_dataset(dataset, advance)
