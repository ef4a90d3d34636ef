"""Compilation of Numba kernels: without the interpreter's lock, cached on disk if it is writable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

# NaN and infinity keep their meaning; other optimisations for vectorised sums are allowed.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a kernel, which is compiled when it is first called."""
    try:
        return nb.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return nb.njit(**_OPTIONS)(function)
