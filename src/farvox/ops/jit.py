"""How Numba kernels are compiled: without the interpreter's lock, kept on disk where the disk can be written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

# NaN and infinity keep their meaning; all else that lets sums be vectorised is allowed.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a kernel; it is compiled when it is first called."""
    try:
        return nb.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return nb.njit(**_OPTIONS)(function)
