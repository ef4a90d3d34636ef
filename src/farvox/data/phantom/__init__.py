"""Embedded CT-like phantoms: a labelled abdomen for the demo, made from a seed, with nothing to download."""

from farvox.data.phantom.anatomy import PHANTOM_LABELS
from farvox.data.phantom.dataset import write_phantoms
from farvox.data.phantom.scan import phantom_case

__all__ = ["PHANTOM_LABELS", "phantom_case", "write_phantoms"]
