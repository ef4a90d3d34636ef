"""The program's verbs and what they share."""

from __future__ import annotations

import typer

from farvox.cli import check, compare, demo, evaluate, info, locate, models, predict, profile, register, train
from farvox.cli import import_obelisk as import_

app = typer.Typer(
    name="farvox",
    help="Segment CT and MR volumes with very small networks: train in minutes, get masks that lie on your scans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (demo, check, train, predict, locate, register, evaluate, compare, models, profile, import_, info):
    name = verb.__name__.rpartition(".")[2].rstrip("_")
    app.command(name=name, cls=getattr(verb, "Command", None))(verb.run)


def _version(wanted: bool) -> None:
    if wanted:
        from farvox import __version__

        typer.echo(f"farvox {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None: ...
