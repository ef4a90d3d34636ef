"""Hand some channels of each slice on to the next slice, and some back to the one before."""

from farvox.ops.depth_shift.reference import depth_shift

__all__ = ["depth_shift"]
