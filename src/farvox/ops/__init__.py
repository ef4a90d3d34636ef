"""Operations networks are built on, a folder each: a plain reference, and faster backends beside it."""

from farvox.ops.depth_shift import depth_shift
from farvox.ops.fused_conv import few_channel_conv
from farvox.ops.pointwise import Step, pointwise_chain
from farvox.ops.sparse_sample import SampleGrid, sparse_conv, sparse_sample

__all__ = ["SampleGrid", "Step", "depth_shift", "few_channel_conv", "pointwise_chain", "sparse_conv", "sparse_sample"]
