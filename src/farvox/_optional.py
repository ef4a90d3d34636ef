"""Libraries that only some verbs need: found, or named together with the extra that brings them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from farvox.errors import FarvoxError


class MissingLibrary(FarvoxError):
    """A library of an extra is not installed."""


def optional(module: str, extra: str) -> ModuleType:
    """Import a library that comes with an extra.

    Raises:
        MissingLibrary: It is not installed; the message says what to type.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingLibrary(
            f"{module.partition('.')[0]} is not installed", remedy=f"pip install 'farvox[{extra}]'"
        ) from None
