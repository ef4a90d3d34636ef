"""`farvox models`: the networks there are, without importing torch."""

from __future__ import annotations

from farvox.cli.common import JsonOption


def run(as_json: JsonOption = False) -> None:
    """List the networks: paper, parameters, what input they take."""
    from dataclasses import asdict

    from farvox.cli.common import print_json, stdout
    from farvox.models import list_models, model_facts

    facts = {name: model_facts(name) for name in list_models()}
    if as_json:
        print_json({name: asdict(fact) for name, fact in facts.items()})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("input")
    table.add_column("paper", ratio=1)
    for name, fact in facts.items():
        table.add_row(name, f"{fact.parameters:,}", fact.input_rule, fact.paper)
    stdout().print(table)
