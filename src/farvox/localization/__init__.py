"""Landmarks and organ centroids found by a trained network, from few points of a scan."""

from farvox.localization.api import LocateOptions, Location, Place, locate, require_point_network

__all__ = ["Location", "Place", "LocateOptions", "locate", "require_point_network"]
