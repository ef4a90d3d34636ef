"""`farvox evaluate`: predictions against references, per case and label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farvox.cli.common import JsonOption

if TYPE_CHECKING:
    from farvox.labels import LabelTable


def run(
    predictions: Annotated[Path, typer.Argument(help="Folder of masks, or one mask.")],
    references: Annotated[Path, typer.Argument(help="Folder of reference labels, or one.")],
    out: Annotated[Path, typer.Option("--out", help="JSON file; a CSV of the same name goes beside it.")] = Path(
        "metrics.json"
    ),
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="Folder whose label table names the values (default: found beside)."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Of surface Dice, mm (default: about one voxel).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Dice, HD95, surface Dice, sensitivity, specificity and volumes; mean ± sd with a bootstrap interval."""
    from farvox.cli.common import print_json, stderr, stdout
    from farvox.evaluation import evaluate_folder

    metrics = evaluate_folder(predictions, references, labels=_labels(dataset, references), tolerance_mm=tolerance)
    metrics.write(out)
    for note in metrics.notes:
        stderr().print(f"note: {note}", markup=False)
    for failure in metrics.failed:
        stderr().print(f"error: {failure.error}", markup=False)
    if as_json:
        print_json(metrics.model_dump())
    else:
        stdout().print(metrics.table())
        stdout().print(f"written to {out}", markup=False)
    raise typer.Exit(1 if metrics.failed else 0)


def _labels(dataset: Path | None, references: Path) -> LabelTable | None:
    """The label table of the dataset named, or of the one the references lie in."""
    from farvox.data import read_dataset
    from farvox.errors import DataError

    if dataset is not None:
        return read_dataset(dataset).labels
    folder = references if references.is_dir() else references.parent
    for place in (folder, folder.parent):
        if (place / "dataset.json").is_file():
            try:
                return read_dataset(place).labels
            except DataError:
                return None
    return None
