"""Operations of networks, one folder each: a plain PyTorch reference and faster backends."""

from farvox._deprecated import renamed
from farvox.ops.depth_shift import depth_shift
from farvox.ops.fused_conv import fused_conv
from farvox.ops.pointwise import PointwiseLayer, pointwise_chain
from farvox.ops.sparse_sample import SampleGrid, sparse_conv, sparse_sample

__all__ = [
    "SampleGrid",
    "PointwiseLayer",
    "depth_shift",
    "fused_conv",
    "pointwise_chain",
    "sparse_conv",
    "sparse_sample",
]

__getattr__ = renamed(__name__, Step="PointwiseLayer", few_channel_conv="fused_conv")
