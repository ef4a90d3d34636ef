"""What training minimises: pure functions of logits and class indices, and their sum by name."""

from farvox.losses.cross_entropy import class_weights, cross_entropy
from farvox.losses.dice import soft_dice
from farvox.losses.terms import TERMS, Loss, make_loss

__all__ = ["TERMS", "Loss", "class_weights", "cross_entropy", "make_loss", "soft_dice"]
