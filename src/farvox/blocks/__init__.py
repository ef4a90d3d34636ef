"""Parts networks are built from, a family a file."""

from farvox.blocks.batch_norm_fusion import fold_norm_before, fold_norm_behind, may_fold, norm_as_affine
from farvox.blocks.conv import ConvNormAct, conv_batch_norm, double_conv
from farvox.blocks.dense import DenseBlock, PreActivationConv
from farvox.blocks.depth_shift import DepthShifted, DistillShift, ResidualShift, insert_depth_shift
from farvox.blocks.fused_conv import FewChannelUnit
from farvox.blocks.obelisk import Obelisk, PointwiseDense
from farvox.blocks.pad import crop_to, pad_beyond, pad_to_multiple
from farvox.blocks.smooth import box_smooth
from farvox.blocks.xception import SeparableConv2d, XceptionUnit
from farvox.types import Shape

__all__ = [
    "ConvNormAct",
    "DenseBlock",
    "DepthShifted",
    "DistillShift",
    "FewChannelUnit",
    "Obelisk",
    "PointwiseDense",
    "PreActivationConv",
    "ResidualShift",
    "SeparableConv2d",
    "Shape",
    "XceptionUnit",
    "box_smooth",
    "conv_batch_norm",
    "crop_to",
    "double_conv",
    "fold_norm_before",
    "fold_norm_behind",
    "insert_depth_shift",
    "may_fold",
    "norm_as_affine",
    "pad_beyond",
    "pad_to_multiple",
]
