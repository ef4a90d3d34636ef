"""Objects of one kind by name: registered in this process, or provided by installed packages as entry points."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from farvox.errors import FarvoxError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to objects; "package.module:object" is accepted as a name too.

    Args:
        kind: What the objects are, for messages: "network".
        group: Entry point group in which installed packages provide more: "farvox.models".
        error: Raised for unknown names, duplicates and plug-ins that fail to load.
        wrap: Converts an imported object, given its path "package.module:object", to what the registry holds.
    """

    def __init__(self, kind: str, group: str, error: type[FarvoxError], wrap: Callable[[str, Any], T]) -> None:
        self._kind, self._group, self._error, self._wrap = kind, group, error, wrap
        self.items: dict[str, T] = {}

    def add(self, name: str, item: T, same: Callable[[T], bool] = lambda item: False) -> None:
        """Register an object; an earlier one of this name is replaced only if it is the `same`."""
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise self._error(f"{name!r} as the name of a {self._kind}", allowed="letters, digits, '-', '_' and '.'")
        if name in self.items and not same(self.items[name]):
            raise self._error(f"a {self._kind} named '{name}' is registered already", hint="use another name")
        self.items[name] = item

    def names(self) -> list[str]:
        """Registered names and those of entry points, sorted; nothing is imported."""
        names = {name for name in self.items if ":" not in name}
        return sorted(names | set(entry_points(group=self._group).names))

    def get(self, name: str) -> T:
        """The object with this name; plug-ins are imported when they are used first."""
        if name not in self.items:
            points = entry_points(group=self._group, name=name)
            paths = [name] if ":" in name else [point.value for point in points]
            if not paths:
                raise self._error(f"no {self._kind} is called '{name}'", hint=suggest(name, self.names()))
            if len(set(paths)) > 1:
                raise self._error(f"several packages provide a {self._kind} named '{name}': {', '.join(paths)}")
            item = self._wrap(paths[0], self._load(paths[0]))
            self.items.setdefault(name, item)  # importing it may have registered it under this name
        return self.items[name]

    def _load(self, path: str) -> Any:
        module, _, attribute = path.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise self._error(f"the {self._kind} '{path}' cannot be imported: {cause}") from error
