"""Agreement of two masks: overlap of voxels and distances of surfaces."""

from farvox.metrics.overlap import Overlap
from farvox.metrics.surface import hd95, surface_dice, surface_distances

__all__ = ["Overlap", "hd95", "surface_dice", "surface_distances"]
