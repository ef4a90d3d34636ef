"""`farvox register`: one scan brought onto another by what a trained network sees in both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farvox.cli.common import DeviceOption, JsonOption

if TYPE_CHECKING:
    from farvox.registration.files import RegistrationResult


def run(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The scan that stays: a file or a DICOM folder.")],
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="The scan that is brought onto it.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="A network trained to segment such scans.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    fixed_labels: Annotated[
        Path | None, typer.Option("--fixed-labels", help="Labels of the fixed scan, for Dice before and after.")
    ] = None,
    moving_labels: Annotated[
        Path | None, typer.Option("--moving-labels", help="Labels of the moving scan, to be carried over.")
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="header: scans lie as their headers say; centres: middle on middle; search.")
    ] = "header",
    features: Annotated[
        str, typer.Option("--features", help="hidden (what enters the last layer), scores, or both.")
    ] = "both",
    iterations: Annotated[int, typer.Option("--iterations", help="Steps at each of three resolutions.")] = 40,
    smoothness: Annotated[float, typer.Option("--smoothness", help="Weight of the penalty on rough fields.")] = 10.0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Deformable registration on a network's frozen features; writes the moved scan, the field, labels, a picture."""
    from farvox.bundle import load_bundle
    from farvox.cli.common import print_json, stderr
    from farvox.cli.progress import scan_bar
    from farvox.registration import RegisterOptions
    from farvox.registration.files import read_pair, register_to_folder

    options = RegisterOptions(features, start, iterations, smoothness)  # type: ignore[arg-type]
    trained = load_bundle(bundle)
    pair = read_pair(fixed, moving, trained, fixed_labels, moving_labels)
    with scan_bar(stderr(), 1) as bar:
        told = (lambda share: bar("registering", share)) if bar else None
        outcome = register_to_folder(pair, trained, out, options, device=device, told=told)
    for note in outcome.notes:
        stderr().print(f"note: {note}", markup=False)
    if as_json:
        print_json({**outcome.document, "files": {what: str(path) for what, path in outcome.files.items()}})
    else:
        _print(outcome)


def _print(outcome: RegistrationResult) -> None:
    from rich.table import Table

    from farvox.cli.common import stdout

    document: dict[str, Any] = outcome.document
    if "dice" in document:
        table = Table("Dice", "before", "after")
        for column in table.columns[1:]:
            column.justify = "right"
        for label in document["dice"]:
            figures = ("–" if label[when] is None else f"{label[when]:.3f}" for when in ("before", "after"))
            table.add_row(label["name"], *figures)
        stdout().print(table)
    moved, jacobian = document["deformation_mm"], document["jacobian"]
    seconds = sum(document["seconds"].values())
    stdout().print(
        f"displaced by {moved['mean']:.2f} mm on average, {moved['most']:.2f} mm at most; "
        f"{100 * jacobian['folded']:.2f} % of voxels folded; {seconds:.1f} s",
        soft_wrap=True,
    )
    for path in outcome.files.values():
        stdout().print(str(path), markup=False, soft_wrap=True)
