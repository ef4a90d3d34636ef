"""Sample an image at learned offsets around each output position, and sum the samples with weights."""

from farvox.ops.sparse_sample.api import BACKENDS, sparse_conv, sparse_sample
from farvox.ops.sparse_sample.sample_points import SampleGrid

__all__ = ["BACKENDS", "SampleGrid", "sparse_conv", "sparse_sample"]
