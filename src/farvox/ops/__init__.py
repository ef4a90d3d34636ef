"""Sampling operations, a folder each: a plain reference, and faster backends beside it."""

from farvox.ops.sparse_sample import SampleGrid, sparse_conv, sparse_sample

__all__ = ["SampleGrid", "sparse_conv", "sparse_sample"]
