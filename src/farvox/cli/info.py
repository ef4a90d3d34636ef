"""`farvox info --system`: what to paste into a bug report."""

from __future__ import annotations

from typing import Annotated

import typer

from farvox.cli.common import JsonOption


def run(
    system: Annotated[bool, typer.Option("--system", help="Libraries, processor and memory too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the versions of this program and, with --system, of the machine and the libraries."""
    from farvox._versions import collect_versions, show_versions
    from farvox.cli.common import print_json

    if as_json:
        print_json(collect_versions(system))
    else:
        show_versions(system)
