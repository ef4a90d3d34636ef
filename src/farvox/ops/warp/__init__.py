"""Maps sampled at transformed points, and distances of features for registration."""

from farvox.ops.warp.api import FeatureDistance, warp

__all__ = ["FeatureDistance", "warp"]
