"""The commands of the program, and the old spellings that are still understood for one release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from farvox.cli import (
    check,
    compare,
    demo,
    evaluate,
    import_obelisk,
    info,
    locate,
    models,
    predict,
    profile,
    register,
    train,
)

_COMMANDS = {"import": "import-obelisk"}
_OPTIONS = {
    ("locate", "--least"): "--min-confidence",
    ("locate", "--steps"): "--rounds",
    ("locate", "--dense"): "--exhaustive",
    ("register", "--start"): "--init",
    ("predict", "--sampling"): "--point-stride",
    ("train", "--all"): "--all-cases",
    ("train", "--radius"): "--landmark-radius",
    ("check", "--radius"): "--landmark-radius",
    ("compare", "--radius"): "--landmark-radius",
}
_VALUES = {
    ("--point-stride", "network"): "native",
    ("--init", "centres"): "centers",
    ("--features", "hidden"): "penultimate",
    ("--features", "scores"): "probabilities",
}


class _Group(TyperGroup):
    """Replaces deprecated spellings before the command line is parsed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_current_spelling(args)))


def _current_spelling(words: list[str]) -> Iterator[str]:
    """The words of a command line with deprecated commands, options and values replaced, each with a note."""
    command = words[0] if words else ""
    last = ""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if number == 0:
            new = _COMMANDS.get(word, word)
            command = new
        elif (command, option) in _OPTIONS:
            new = _OPTIONS[command, option] + equals + value
        else:
            new = _VALUES.get((last, word), word)
        if new != word:
            typer.echo(f"note: '{word}' is deprecated, use '{new}'", err=True)
        last = new
        yield new


app = typer.Typer(
    name="farvox",
    help="Segment CT and MR volumes with very small networks: train in minutes, get masks on the grid of your scans.",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    check,
    train,
    predict,
    locate,
    register,
    evaluate,
    compare,
    models,
    profile,
    import_obelisk,
    info,
):
    command_name = command.__name__.rpartition(".")[2].replace("_", "-")
    app.command(name=command_name, cls=getattr(command, "Command", None))(command.run)


def _version(requested: bool) -> None:
    if requested:
        from farvox import __version__

        typer.echo(f"farvox {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None: ...
