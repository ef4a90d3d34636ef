"""A loss as recipes write it: a list of terms by name, summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from farvox.errors import UsageError, suggest
from farvox.losses.cross_entropy import cross_entropy
from farvox.losses.dice import soft_dice

Term = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

_TERMS: dict[str, Term] = {
    "cross_entropy": cross_entropy,
    "hard_cross_entropy_half": partial(cross_entropy, keep_fraction=0.5),
    "hard_cross_entropy_quarter": partial(cross_entropy, keep_fraction=0.25),
    "dice": lambda logits, target, weights: soft_dice(logits, target),
}

TERMS = tuple(_TERMS)
"""Names `make_loss` knows."""


class Loss(nn.Module):
    """Sum of loss terms; logits (B, classes, I, J, K), target (B, I, J, K) class indices → scalar.

    Args:
        terms: Names out of `TERMS`, each at most once.
        weights: (classes,) weights of the cross-entropy terms, or None.

    Raises:
        UsageError: No term, an unknown one, or one twice.
    """

    weights: torch.Tensor | None

    def __init__(self, terms: Sequence[str], weights: torch.Tensor | None = None) -> None:
        super().__init__()
        for term in terms:
            if term not in _TERMS:
                raise UsageError(f"no loss term is called '{term}'", hint=suggest(term, TERMS))
        if not terms or len(set(terms)) < len(terms):
            raise UsageError(f"loss terms {list(terms)}", allowed=f"one or more of {', '.join(TERMS)}, each once")
        self.terms = tuple(terms)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, float32 or wider."""
        return torch.stack([_TERMS[term](logits, target, self.weights) for term in self.terms]).sum()


def make_loss(terms: Sequence[str], weights: torch.Tensor | None = None) -> Loss:
    """The loss a recipe names; see `Loss`."""
    return Loss(terms, weights)
