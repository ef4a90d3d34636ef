"""Libraries of extras: imported, or named in an error together with the extra."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from farvox.errors import FarvoxError


class MissingDependencyError(FarvoxError):
    """A library of an extra is not installed."""


def import_optional(module: str, extra: str) -> ModuleType:
    """Import a library of an extra.

    Raises:
        MissingDependencyError: It is not installed; the message contains the command to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{module.partition('.')[0]} is not installed", hint=f"pip install 'farvox[{extra}]'"
        ) from None
