"""Old spellings of commands, options and values work for one release, with a note."""

from __future__ import annotations

import pytest

from farvox.cli.app import _COMMANDS, _OPTIONS, _current_spelling, app


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["import", "x.pth"], ["import-obelisk", "x.pth"]),
        (["locate", "B", "--least", "0.4", "--steps=3"], ["locate", "B", "--min-confidence", "0.4", "--rounds=3"]),
        (["predict", "B", "--sampling", "network"], ["predict", "B", "--point-stride", "native"]),
        (["train", "D", "--all"], ["train", "D", "--all-cases"]),
        (["evaluate", "--all"], ["evaluate", "--all"]),
    ],
)
def test_old_spellings_are_replaced(old: list[str], new: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(_current_spelling(old)) == new
    changed = sum(a != b for a, b in zip(old, new, strict=True))
    assert capsys.readouterr().err.count("is deprecated, use") == changed


def test_every_replacement_exists() -> None:
    import typer

    commands = typer.main.get_command(app).commands
    assert set(_COMMANDS.values()) <= set(commands)
    for (command, old), new in _OPTIONS.items():
        options = {name for parameter in commands[command].params for name in parameter.opts}
        assert new in options, f"{command} {new}"
        assert old not in options
