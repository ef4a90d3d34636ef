"""Embedded CT-like phantoms: a labelled abdomen for the demo, made from a seed, with nothing to download."""

from farvox.synthetic.anatomy import PHANTOM_LABELS
from farvox.synthetic.dataset import write_phantoms
from farvox.synthetic.scan import phantom_case

__all__ = ["PHANTOM_LABELS", "phantom_case", "write_phantoms"]
