"""Maps read at moved points: values for pictures and labels, distances of features for registration."""

from farvox.ops.warp.api import FeatureDistance, warp

__all__ = ["FeatureDistance", "warp"]
