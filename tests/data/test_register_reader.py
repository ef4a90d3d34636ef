"""Own readers: registered in the program or provided by an installed package."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import farvox
from farvox import _plugins
from farvox.data import readers
from farvox.errors import UsageError

from .files import blob, msd, noise


class Csv:
    """A layout of its own: a file named cases.csv and an MSD folder below."""

    def matches(self, root: Path) -> bool:
        return (root / "cases.csv").exists()

    def read(self, root: Path) -> farvox.Dataset:
        return replace(farvox.read_dataset(root / "inner"), layout="csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    msd(tmp_path / "inner", {"a": (noise((6, 5, 4)), blob((6, 5, 4), 1, 2))})
    (tmp_path / "cases.csv").write_text("", encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def _no_readers_left() -> Iterator[None]:
    yield
    readers._REGISTRY.items.clear()


def provide(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Pretend that an installed package has an entry point."""
    points = EntryPoints([EntryPoint("csv", value, "farvox.readers")])
    monkeypatch.setattr(_plugins, "entry_points", lambda **parameters: points.select(**parameters))


@pytest.mark.parametrize("reader", [Csv, Csv()])
def test_a_registered_reader_is_tried_first(folder: Path, reader: object) -> None:
    assert farvox.register_reader("csv")(reader) is reader
    dataset = farvox.read_dataset(folder)
    assert (dataset.layout, [case.id for case in dataset]) == ("csv", ["a"])
    assert farvox.read_dataset(str(folder / "inner")).layout == "msd"


def test_names_are_unique_and_both_methods_required() -> None:
    farvox.register_reader("csv")(Csv)
    for name in ("csv", "msd"):
        with pytest.raises(UsageError, match=f"a reader named '{name}' is registered already"):
            farvox.register_reader(name)(Csv)
    with pytest.raises(UsageError, match=r"reader 'odd' has no matches and no read; expected: matches\(root\)"):
        farvox.register_reader("odd")(object())


def test_a_reader_must_return_a_dataset(folder: Path) -> None:
    reader = Csv()
    reader.read = lambda root: [root]  # type: ignore[assignment, method-assign, return-value]
    farvox.register_reader("csv")(reader)
    with pytest.raises(UsageError, match=r"reader 'csv' returned a list; expected: a farvox\.Dataset"):
        farvox.read_dataset(folder)


def test_a_reader_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pacs_reader")
    module.Csv = Csv  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pacs_reader", module)
    provide(monkeypatch, "pacs_reader:Csv")
    assert farvox.read_dataset(folder).layout == "csv"


def test_a_broken_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, "no_such_package:Csv")
    with pytest.raises(UsageError, match=r"the reader 'no_such_package:Csv' cannot be imported: ModuleNotFoundError"):
        farvox.read_dataset(folder)
