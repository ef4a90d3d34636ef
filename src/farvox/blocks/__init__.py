"""Parts networks are built from, a family a file."""

from farvox.blocks.conv import ConvNormAct, Triple, count_parameters, double_conv
from farvox.blocks.dense import DenseBlock, PreActivationConv
from farvox.blocks.depth_shift import DepthShifted, DistillShift, ResidualShift, insert_depth_shift
from farvox.blocks.few_channels import FewChannelUnit
from farvox.blocks.obelisk import Obelisk, PointwiseDense
from farvox.blocks.pad import crop_to, pad_beyond, pad_to_multiple
from farvox.blocks.smooth import box_smooth
from farvox.blocks.xception import SeparableConv2d, XceptionUnit

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
    "Triple",
    "XceptionUnit",
    "box_smooth",
    "count_parameters",
    "crop_to",
    "double_conv",
    "insert_depth_shift",
    "pad_beyond",
    "pad_to_multiple",
]
