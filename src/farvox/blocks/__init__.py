"""Parts networks are built from, a family a file."""

from farvox.blocks.conv import ConvNormAct, Triple, count_parameters, double_conv
from farvox.blocks.obelisk import Obelisk, PointwiseDense
from farvox.blocks.pad import crop_to, pad_to_multiple

__all__ = [
    "ConvNormAct",
    "Obelisk",
    "PointwiseDense",
    "Triple",
    "count_parameters",
    "crop_to",
    "double_conv",
    "pad_to_multiple",
]
