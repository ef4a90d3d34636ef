"""`farvox evaluate`: compare predicted masks with references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import JsonOption


def run(
    predictions: Annotated[Path, typer.Argument(help="Folder of masks, or one mask.")],
    references: Annotated[Path, typer.Argument(help="Folder of reference labels, or one.")],
    out: Annotated[
        Path, typer.Option("--out", help="JSON file; a CSV file of the same name is written next to it.")
    ] = Path("metrics.json"),
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="Dataset folder with the label names (default: that of the references)."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Tolerance of surface Dice, mm (default: about one voxel).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Dice, HD95, surface Dice, sensitivity, specificity and volumes; mean ± sd with a bootstrap interval."""
    from farvox.cli.common import print_json, stderr, stdout
    from farvox.data import read_dataset
    from farvox.evaluation.api import evaluate

    labels = None if dataset is None else read_dataset(dataset).labels
    metrics = evaluate(predictions, references, labels=labels, tolerance_mm=tolerance, out=out, progress=False)
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
