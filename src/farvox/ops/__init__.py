"""Sampling operations, a folder each: a plain reference, and faster backends beside it."""

from farvox.ops.depth_shift import depth_shift
from farvox.ops.sparse_sample import SampleGrid, sparse_conv, sparse_sample

__all__ = ["SampleGrid", "depth_shift", "sparse_conv", "sparse_sample"]
