"""Read an image at learned offsets around each output position, and weigh what was read."""

from farvox.ops.sparse_sample.api import BACKENDS, SampleGrid, sparse_conv, sparse_sample

__all__ = ["BACKENDS", "SampleGrid", "sparse_conv", "sparse_sample"]
