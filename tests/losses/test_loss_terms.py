"""A loss by names is the sum of its terms; wrong names are answered."""

from __future__ import annotations

import pytest
import torch

from farvox.errors import UsageError
from farvox.losses import TERMS, cross_entropy, make_loss, soft_dice

WEIGHTS = torch.tensor([0.5, 1.4, 0.6])


def _random() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, 4, 4, 4, generator=generator), torch.randint(0, 3, (1, 4, 4, 4), generator=generator)


def test_sum_of_all_terms() -> None:
    logits, target = _random()
    expected = sum(
        cross_entropy(logits, target, WEIGHTS, keep_fraction) for keep_fraction in (1.0, 0.5, 0.25)
    ) + soft_dice(logits, target)
    torch.testing.assert_close(make_loss(TERMS, WEIGHTS)(logits, target), expected)


@pytest.mark.parametrize(
    ("term", "keep_fraction"),
    [("cross_entropy", 1.0), ("hard_cross_entropy_half", 0.5), ("hard_cross_entropy_quarter", 0.25)],
)
def test_term_keeps_its_fraction(term: str, keep_fraction: float) -> None:
    logits, target = _random()
    torch.testing.assert_close(
        make_loss([term])(logits, target), cross_entropy(logits, target, keep_fraction=keep_fraction)
    )


def test_float32_under_autocast() -> None:
    logits, target = _random()
    with torch.autocast("cpu", torch.bfloat16):
        loss = make_loss(["cross_entropy", "dice"], WEIGHTS)(logits.bfloat16(), target)
    assert loss.dtype == torch.float32


def test_unknown_term_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'dicce'.*did you mean 'dice'\?"):
        make_loss(["cross_entropy", "dicce"])


@pytest.mark.parametrize("terms", [[], ["dice", "dice"]])
def test_none_or_twice(terms: list[str]) -> None:
    with pytest.raises(UsageError, match="each once"):
        make_loss(terms)
