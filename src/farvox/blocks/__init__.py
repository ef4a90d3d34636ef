"""Building blocks of networks, one family per file."""

from farvox._deprecated import renamed
from farvox.blocks.batch_norm_fusion import (
    batch_norm_scale_shift,
    can_fuse,
    fuse_norm_into_next,
    fuse_norm_into_previous,
)
from farvox.blocks.conv import ConvNormAct, conv_batch_norm, double_conv
from farvox.blocks.dense import DenseBlock, PreActivationConv
from farvox.blocks.depth_shift import DepthShifted, DistillShift, ResidualShift, insert_depth_shift
from farvox.blocks.fused_conv import FusedConvUnit
from farvox.blocks.obelisk import Obelisk, PointwiseDense
from farvox.blocks.pad import crop_to, pad_beyond, pad_to_multiple
from farvox.blocks.smooth import box_smooth
from farvox.blocks.xception import SeparableConv2d, XceptionUnit

__all__ = [
    "ConvNormAct",
    "DenseBlock",
    "DepthShifted",
    "DistillShift",
    "FusedConvUnit",
    "Obelisk",
    "PointwiseDense",
    "PreActivationConv",
    "ResidualShift",
    "SeparableConv2d",
    "XceptionUnit",
    "box_smooth",
    "conv_batch_norm",
    "crop_to",
    "double_conv",
    "fuse_norm_into_next",
    "fuse_norm_into_previous",
    "insert_depth_shift",
    "can_fuse",
    "batch_norm_scale_shift",
    "pad_beyond",
    "pad_to_multiple",
]

__getattr__ = renamed(
    __name__,
    FewChannelUnit="FusedConvUnit",
    Triple="farvox.types:Shape",
    fold_norm_before="fuse_norm_into_next",
    fold_norm_behind="fuse_norm_into_previous",
    may_fold="can_fuse",
    norm_as_affine="batch_norm_scale_shift",
)
