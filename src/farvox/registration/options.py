"""The options of a registration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from farvox.errors import UsageError

InitialTransform = Literal["header", "centers", "search"]
"""From the headers, from the centres of the fields of view, or the best of many translations."""
FeatureKind = Literal["penultimate", "probabilities", "both"]
"""The input of the network's last layer, the class probabilities, or both."""
_DEPRECATED = {"centres": "centers", "hidden": "penultimate", "scores": "probabilities"}


@dataclass(frozen=True)
class RegisterOptions:
    """How scans are registered.

    Args:
        features: "penultimate" (as in the OBELISK paper), "probabilities" or "both".
        init: The initial translation: "header", "centers" or "search".
        iterations: Optimisation steps at each of the resolutions; 0 keeps the initial translation.
        smoothness: Weight of the bending penalty, 0 or more.
    """

    features: FeatureKind = "both"
    init: InitialTransform = "header"
    iterations: int = 40
    smoothness: float = 10.0

    def __post_init__(self) -> None:
        for name, kind in (("features", FeatureKind), ("init", InitialTransform)):
            value = getattr(self, name)
            if value in _DEPRECATED:
                object.__setattr__(self, name, _DEPRECATED[value])
                message = f"{name}='{value}' is deprecated; use '{_DEPRECATED[value]}'"
                warnings.warn(message, DeprecationWarning, stacklevel=3)
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"{name} '{value}'", allowed=", ".join(get_args(kind)))
        if self.iterations < 0:
            raise UsageError(f"iterations {self.iterations}", allowed="0 or more")
        if not (np.isfinite(self.smoothness) and self.smoothness >= 0):
            raise UsageError(f"smoothness {self.smoothness:g}", allowed="0 or more")
