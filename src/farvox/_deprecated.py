"""Names of earlier releases, which work for one release with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import ParamSpec, TypeVar

_MOVED = {
    "farvox.predict": "farvox.prediction",
    "farvox.data.io": "farvox.io",
    "farvox.data.phantom": "farvox.synthetic",
    "farvox.data.case": "farvox.data.dataset",
    "farvox.data.prepare": "farvox.preprocessing.preprocess",
    "farvox.train": "farvox.training",
    "farvox.train.run": "farvox.training.fold",
    "farvox.evaluate": "farvox.evaluation",
    "farvox.compare": "farvox.comparison",
    "farvox.locate": "farvox.localization",
    "farvox.register": "farvox.registration",
}
"""New name of each moved module."""

P = ParamSpec("P")
R = TypeVar("R")


class CallableModule(ModuleType):
    """A moved package whose old name is a function now: the package's names, and calls of the function."""

    __wrapped__: Callable[..., object]

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(_MOVED[self.__name__]), name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)


class MovedModules(MetaPathFinder, Loader):
    """Imports a moved module and its submodules under their old names; `farvox` puts it on `sys.meta_path`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of an old name; None for all other names."""
        old = max((old for old in _MOVED if name == old or name.startswith(f"{old}.")), key=len, default=None)
        return None if old is None else ModuleSpec(name, self, origin=_MOVED[old] + name.removeprefix(old))

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module by the one of the new name, or make it callable as the function of its name."""
        name, spec = module.__name__, module.__spec__
        if spec is None or spec.origin is None:
            return
        warnings.warn(f"the module {name} is now {spec.origin}", DeprecationWarning, stacklevel=2)
        moved, function = import_module(spec.origin), name.removeprefix("farvox.")
        home = sys.modules["farvox"].__dict__["_HOME"].get(function)
        if home is None:
            sys.modules[name] = moved
        else:
            module.__path__ = moved.__path__
            module.__dict__["__wrapped__"] = getattr(import_module(home), function)
            module.__class__ = CallableModule


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
