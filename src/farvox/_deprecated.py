"""Names of earlier releases, which work for one release with a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(module: str, **names: str) -> Callable[[str], object]:
    """A module-level `__getattr__` that finds renamed objects.

    Args:
        module: Name of the module.
        **names: New name of each old one: in this module, or "package.module:name".
    """

    def __getattr__(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        home, _, new = names[name].rpartition(":")
        warnings.warn(f"{module}.{name} is now {home or module}.{new}", DeprecationWarning, stacklevel=2)
        value: object = getattr(import_module(home or module), new)
        return value

    return __getattr__


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that it accepts a keyword argument under its old name, too."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                warnings.warn(f"{function.__name__}({old}=...) is now {new}=...", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
