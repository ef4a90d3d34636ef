"""Errors in one line: the case, what was found, what is expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FarvoxError(Exception):
    """An error that the user can fix.

    Args:
        found: What was found, as a statement.
        allowed: What is expected.
        hint: What to do or type next.
        case: Id of the case with the error; the message starts with it.
    """

    exit_code = 1

    def __init__(
        self, found: str, *, allowed: str | None = None, hint: str | None = None, case: str | None = None
    ) -> None:
        self.found, self.allowed, self.hint, self.case = found, allowed, hint, case
        super().__init__(found)

    def __str__(self) -> str:
        parts = [f"case {self.case}: {self.found}" if self.case else self.found]
        if self.allowed:
            parts.append(f"expected: {self.allowed}")
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "; ".join(" ".join(part.split()) for part in parts)


class DataError(FarvoxError):
    """A scan, label or dataset folder is not usable."""


class BundleError(FarvoxError):
    """A bundle is incomplete, damaged or newer than this program."""


class DeviceError(FarvoxError):
    """The requested device does not exist or cannot do the work."""


class ResourceError(FarvoxError):
    """Memory or disk does not suffice."""


class UsageError(FarvoxError):
    """The command or an option is wrong (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or a setting in it is wrong."""


class ModelError(UsageError):
    """An unknown network name or option."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory does not suffice; for CPUs torch raises a plain RuntimeError."""
    phrases = ("out of memory", "can't allocate memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def suggest(name: str, known: Iterable[str]) -> str:
    """Phrase for a message: the closest known name, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
