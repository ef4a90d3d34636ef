"""`farvox register`: deformable registration of two scans by the features of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption

_FIXED = typer.Argument(metavar="FIXED", help="The fixed scan: a file or a DICOM folder.")
_MOVING = typer.Argument(metavar="MOVING", help="The moving scan, which is deformed.")
_BUNDLE = typer.Option("--bundle", help="A bundle or run trained to segment such scans.")
_OUT = typer.Option("--out", help="Folder for the results.")
_FIXED_LABELS = typer.Option("--fixed-labels", help="Labels of the fixed scan, for Dice before and after.")
_MOVING_LABELS = typer.Option("--moving-labels", help="Labels of the moving scan, which are propagated.")
_INIT = typer.Option("--init", help="Initial translation: header (none), centers, or search (the best of many).")
_FEATURES = typer.Option("--features", help="penultimate (input of the last layer), probabilities, or both.")
_ITERATIONS = typer.Option("--iterations", help="Optimisation steps at each of three resolutions.")
_SMOOTHNESS = typer.Option("--smoothness", help="Weight of the bending penalty.")


def run(
    fixed: Annotated[Path, _FIXED],
    moving: Annotated[Path, _MOVING],
    bundle: Annotated[Path, _BUNDLE],
    out: Annotated[Path, _OUT],
    fixed_labels: Annotated[Path | None, _FIXED_LABELS] = None,
    moving_labels: Annotated[Path | None, _MOVING_LABELS] = None,
    init: Annotated[str, _INIT] = "header",
    features: Annotated[str, _FEATURES] = "both",
    iterations: Annotated[int, _ITERATIONS] = 40,
    smoothness: Annotated[float, _SMOOTHNESS] = 10.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Register two scans with a network's frozen features; writes the moved scan, field, labels and a figure."""
    from farvox.cli.common import print_json, stderr, stdout
    from farvox.prediction import Predictor
    from farvox.registration import RegisterOptions
    from farvox.registration.files import read_pair, register_to_folder

    options = RegisterOptions(features, init, iterations, smoothness)  # type: ignore[arg-type]
    predictor = Predictor.load(bundle, device=device)
    pair = read_pair(fixed, moving, predictor, fixed_labels, moving_labels)
    result = register_to_folder(pair, predictor, out, options)
    for note in result.notes:
        stderr().print(f"note: {note}", markup=False)
    if as_json:
        files = {what: str(path) for what, path in result.files.items()}
        print_json({**result.metrics.model_dump(mode="json"), "files": files})
        return
    stdout().print(result.metrics.table())
    stdout().print(str(result.metrics), soft_wrap=True, markup=False)
    for path in result.files.values():
        stdout().print(str(path), markup=False, soft_wrap=True)
