"""Trained networks on disk."""

from farvox.bundle.manifest import Inference, LabelEntry, Manifest, ModelEntry
from farvox.bundle.save_load import Bundle, load_bundle, save_bundle

__all__ = ["Bundle", "Inference", "LabelEntry", "Manifest", "ModelEntry", "load_bundle", "save_bundle"]
