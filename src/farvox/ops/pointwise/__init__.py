"""Chains of 1×1×1 layers, computed chunk by chunk in the processor's cache."""

from farvox.ops.pointwise.api import PointwiseLayer, pointwise_chain

__all__ = ["PointwiseLayer", "pointwise_chain"]
