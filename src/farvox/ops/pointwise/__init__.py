"""Networks of 1×1×1 layers, answered piece by piece in the cache."""

from farvox.ops.pointwise.api import PointwiseLayer, pointwise_chain

__all__ = ["PointwiseLayer", "pointwise_chain"]
