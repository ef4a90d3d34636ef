"""Loss functions of logits and class indices, and their sum by name."""

from farvox._deprecated import renamed
from farvox.losses.cross_entropy import class_weights, cross_entropy
from farvox.losses.dice import soft_dice
from farvox.losses.terms import Loss, LossTerm, list_losses, register_loss

__all__ = ["Loss", "LossTerm", "class_weights", "cross_entropy", "list_losses", "register_loss", "soft_dice"]

__getattr__ = renamed(__name__, make_loss="Loss")
