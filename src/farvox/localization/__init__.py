"""Landmarks and organ centroids found by a trained network, from few points of a scan."""

from farvox.localization.api import Location, Place, Settings, locate, require_points

__all__ = ["Location", "Place", "Settings", "locate", "require_points"]
