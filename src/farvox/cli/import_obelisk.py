"""`farvox import-obelisk`: converts published weights to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import JsonOption


def run(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A published OBELISK .pth file.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.")],
    as_json: JsonOption = False,
) -> None:
    """Convert published OBELISK weights to a bundle; code in the file is not run."""
    from farvox.bundle.import_obelisk import import_obelisk
    from farvox.cli.common import print_json, stdout

    manifest = import_obelisk(checkpoint, out).manifest
    if as_json:
        print_json({"bundle": str(out), **manifest.model_dump(mode="json")})
        return
    lines = (
        f"{out}: {manifest.model.name}, {manifest.parameters:,} parameters",
        f"labels: {', '.join(f'{label.value} {label.name}' for label in manifest.labels[1:])}",
        f"note: {manifest.note}",
    )
    for line in lines:
        stdout().print(line, markup=False, soft_wrap=True)
