"""farvox: volumetric medical image segmentation with small networks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from farvox._deprecated import MovedModules

__version__ = "0.1.0"

if TYPE_CHECKING:
    from farvox._versions import show_versions
    from farvox.comparison.api import compare
    from farvox.data import Case, Check, Dataset, check, read_dataset, register_reader
    from farvox.errors import FarvoxError
    from farvox.evaluation import Metrics, evaluate
    from farvox.localization import Landmarks, locate
    from farvox.losses import register_loss
    from farvox.models import create_model, list_models, model_info, register_model
    from farvox.prediction import PointPredictions, Predictor, PreparedScan
    from farvox.profiling import Profile, profile
    from farvox.progress import Progress
    from farvox.recipes import Recipe, load_recipe
    from farvox.registration import Registration, register
    from farvox.runs.run import FoldRun, Run
    from farvox.runs.schema import Comparison
    from farvox.training.api import train

# Public names resolve on first use, so that `import farvox` and `farvox --help` import neither torch nor numpy.
_MODULES = {
    "farvox._versions": ("show_versions",),
    "farvox.comparison.api": ("compare",),
    "farvox.data": (
        "Case",
        "Check",
        "Dataset",
        "check",
        "read_dataset",
        "register_reader",
    ),
    "farvox.errors": ("FarvoxError",),
    "farvox.evaluation": (
        "Metrics",
        "evaluate",
    ),
    "farvox.localization": (
        "Landmarks",
        "locate",
    ),
    "farvox.losses": ("register_loss",),
    "farvox.models": (
        "create_model",
        "list_models",
        "model_info",
        "register_model",
    ),
    "farvox.prediction": (
        "PointPredictions",
        "Predictor",
        "PreparedScan",
    ),
    "farvox.profiling": (
        "Profile",
        "profile",
    ),
    "farvox.progress": ("Progress",),
    "farvox.recipes": (
        "Recipe",
        "load_recipe",
    ),
    "farvox.registration": (
        "Registration",
        "register",
    ),
    "farvox.runs.run": (
        "FoldRun",
        "Run",
    ),
    "farvox.runs.schema": ("Comparison",),
    "farvox.training.api": ("train",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

sys.meta_path.insert(0, MovedModules())

__all__ = [
    "Case",
    "Check",
    "Comparison",
    "Dataset",
    "FarvoxError",
    "FoldRun",
    "Landmarks",
    "Metrics",
    "PointPredictions",
    "Predictor",
    "PreparedScan",
    "Profile",
    "Progress",
    "Recipe",
    "Registration",
    "Run",
    "__version__",
    "check",
    "compare",
    "create_model",
    "evaluate",
    "list_models",
    "load_recipe",
    "locate",
    "model_info",
    "profile",
    "read_dataset",
    "register",
    "register_loss",
    "register_model",
    "register_reader",
    "show_versions",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'farvox' has no attribute '{name}'")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
