"""Shift some channels of each slice to the next slice, and some to the previous one."""

from farvox.ops.depth_shift.reference import depth_shift

__all__ = ["depth_shift"]
