"""Losses by name, and their sum as recipes write it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from farvox._plugins import Registry
from farvox.errors import UsageError
from farvox.losses.cross_entropy import cross_entropy
from farvox.losses.dice import soft_dice

LossTerm = Callable[..., torch.Tensor]
"""Function or module: logits (B, classes, I, J, K) and classes (B, I, J, K) → scalar. With parameters named `weights`
(class weights or None) or `keep_fraction`, it receives the recipe's values."""

_REGISTRY: Registry[LossTerm] = Registry("loss", "farvox.losses", UsageError, lambda path, term: term)
_Term = TypeVar("_Term", bound=LossTerm)


def register_loss(name: str) -> Callable[[_Term], _Term]:
    """Decorate a loss function so that recipes can name it in `loss.terms`.

    Installed packages can provide losses as entry points of the group `farvox.losses`.

    >>> @register_loss("logits-squared")
    ... def logits_squared(logits, target):
    ...     return logits.square().mean()
    >>> Loss(["dice", "logits-squared"]).terms
    ('dice', 'logits-squared')

    Args:
        name: Not yet used by another loss.

    Raises:
        UsageError: The name is in use.
    """

    def register(term: _Term) -> _Term:
        identity = (term.__module__, getattr(term, "__qualname__", ""))
        _REGISTRY.add(name, term, lambda old: (old.__module__, getattr(old, "__qualname__", "")) == identity)
        return term

    return register


def list_losses() -> list[str]:
    """Names for `loss.terms` in recipes, sorted."""
    return _REGISTRY.names()


@register_loss("cross_entropy")
def _cross_entropy(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return cross_entropy(logits, target, weights)


register_loss("topk_cross_entropy")(cross_entropy)
register_loss("dice")(soft_dice)


class Loss(nn.Module):
    """Sum of losses: logits (B, classes, I, J, K) and classes (B, I, J, K) → scalar.

    Args:
        terms: Names out of `list_losses()`, "package.module:function", or functions and modules; each at most once.
        weights: (classes,) weights of the cross-entropy terms, or None.
        keep_fraction: Fraction of voxels that `topk_cross_entropy` averages, those of the highest loss.

    Raises:
        UsageError: No term, an unknown one, or one twice.
    """

    weights: torch.Tensor | None

    def __init__(
        self, terms: Sequence[str | LossTerm], weights: torch.Tensor | None = None, keep_fraction: float = 0.25
    ) -> None:
        super().__init__()
        functions = [_REGISTRY.get(term) if isinstance(term, str) else term for term in terms]
        self.terms = tuple(term if isinstance(term, str) else getattr(term, "__name__", repr(term)) for term in terms)
        if not terms or len(set(terms)) < len(terms):
            raise UsageError(
                f"loss terms {list(self.terms)}", allowed=f"one or more of {', '.join(list_losses())}, each once"
            )
        self._modules_of_terms = nn.ModuleList(function for function in functions if isinstance(function, nn.Module))
        self._functions = [(function, _options(function)) for function in functions]
        self._keep_fraction = keep_fraction
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, float32 or wider."""
        values = {"weights": self.weights, "keep_fraction": self._keep_fraction}
        return torch.stack(
            [term(logits, target, **{name: values[name] for name in options}) for term, options in self._functions]
        ).sum()


def _options(term: LossTerm) -> list[str]:
    parameters = inspect.signature(term.forward if isinstance(term, nn.Module) else term).parameters
    return [name for name in ("weights", "keep_fraction") if name in parameters]
