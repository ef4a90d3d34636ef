"""`farvox models`: the networks there are, without importing torch."""

from __future__ import annotations

import os

from farvox.cli.common import JsonOption

_PIPE_WIDTH = 160
"""Columns where no terminal says how many there are; enough for whole lines."""


def run(as_json: JsonOption = False) -> None:
    """List the networks: parameters, multiply-adds per voxel, smallest input, paper."""
    from dataclasses import asdict

    from farvox.cli.common import print_json, stdout
    from farvox.models import list_models, model_info

    facts = {name: model_info(name) for name in list_models()}
    if as_json:
        print_json({name: asdict(fact) for name, fact in facts.items()})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds\nper voxel", justify="right", no_wrap=True)
    table.add_column("smallest\ninput", justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, fact in facts.items():
        smallest = "×".join(map(str, fact.min_size))
        table.add_row(name, f"{fact.parameters:,}", f"{fact.multiply_adds:,}", smallest, fact.paper)
    console = stdout()
    told = console.is_terminal or "COLUMNS" in os.environ
    console.print(table, width=None if told else _PIPE_WIDTH)
