"""Landmarks and organ centroids found by a trained network, from few points of a scan."""

from farvox.localization.api import Landmark, Landmarks, LocateOptions, locate
from farvox.localization.files import locate_files

__all__ = ["Landmark", "Landmarks", "LocateOptions", "locate", "locate_files"]
