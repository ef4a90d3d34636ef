"""farvox: volumetric medical image segmentation with very small networks that reach far."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "farvox.models",
    "list_models": "farvox.models",
    "Predictor": "farvox.prediction",
}

__all__ = ["Predictor", "__version__", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    # Public names resolve on first use, so that `import farvox` and `farvox --help` stay instant.
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'farvox' has no attribute '{name}'")
