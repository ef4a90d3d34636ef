"""Trained networks on disk."""

from farvox.bundle.files import Bundle, load_bundle, save_bundle
from farvox.bundle.manifest import LabelEntry, Manifest, ModelEntry

__all__ = ["Bundle", "LabelEntry", "Manifest", "ModelEntry", "load_bundle", "save_bundle"]
