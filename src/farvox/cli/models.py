"""`farvox models`: the networks by name, without importing torch."""

from __future__ import annotations

import os

from farvox.cli.common import JsonOption

_PIPE_WIDTH = 160
"""Columns if the output is not a terminal; enough for whole lines."""


def run(as_json: JsonOption = False) -> None:
    """List the networks: parameters, multiply-adds per voxel, smallest input, paper."""
    from dataclasses import asdict

    from rich.table import Table

    from farvox.cli.common import print_json, stdout
    from farvox.errors import ModelError
    from farvox.models import ModelInfo, list_models, model_info

    networks = {}
    for name in list_models():
        try:
            networks[name] = model_info(name)
        except ModelError as error:  # of a plug-in that cannot be imported
            networks[name] = ModelInfo("", note=str(error), paper=str(error))
    if as_json:
        print_json({name: asdict(info) for name, info in networks.items()})
        return
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds\nper voxel", justify="right", no_wrap=True)
    table.add_column("smallest\ninput", justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, info in networks.items():
        smallest = "×".join(map(str, info.min_size))
        table.add_row(name, f"{info.parameters:,}", f"{info.multiply_adds:,}", smallest, info.paper)
    console = stdout()
    console.print(table, width=None if console.is_terminal or "COLUMNS" in os.environ else _PIPE_WIDTH)
