"""A loss by names is the sum of its terms; wrong names are answered."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch

from farvox.errors import UsageError
from farvox.losses import Loss, cross_entropy, list_losses, register_loss, soft_dice
from farvox.losses.terms import _REGISTRY

WEIGHTS = torch.tensor([0.5, 1.4, 0.6])


def _random() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, 4, 4, 4, generator=generator), torch.randint(0, 3, (1, 4, 4, 4), generator=generator)


def test_sum_of_all_terms() -> None:
    logits, target = _random()
    expected = (
        cross_entropy(logits, target, WEIGHTS)
        + cross_entropy(logits, target, WEIGHTS, keep_fraction=0.1)
        + soft_dice(logits, target)
    )
    loss = Loss(["cross_entropy", "topk_cross_entropy", "dice"], WEIGHTS, keep_fraction=0.1)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize(
    ("term", "setting", "keep_fraction"),
    [("cross_entropy", 0.5, 1.0), ("topk_cross_entropy", 0.5, 0.5), ("topk_cross_entropy", 0.25, 0.25)],
)
def test_only_topk_keeps_a_fraction(term: str, setting: float, keep_fraction: float) -> None:
    logits, target = _random()
    torch.testing.assert_close(
        Loss([term], keep_fraction=setting)(logits, target), cross_entropy(logits, target, keep_fraction=keep_fraction)
    )


def test_own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farvox.losses.terms._REGISTRY.items", dict(_REGISTRY.items))
    logits, target = _random()

    @register_loss("mine")
    def mine(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        assert weights is not None
        return logits.mean() * weights[1]

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(3.0))

        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return logits.mean() * self.scale

    assert "mine" in list_losses()
    torch.testing.assert_close(Loss(["mine"], WEIGHTS)(logits, target), logits.mean() * WEIGHTS[1])
    torch.testing.assert_close(Loss([mine, Scale()], WEIGHTS)(logits, target), logits.mean() * (WEIGHTS[1] + 3))
    torch.testing.assert_close(Loss(["farvox.losses:soft_dice"])(logits, target), soft_dice(logits, target))
    assert Loss([Scale()]).double()(logits.double(), target).dtype == torch.float64
    with pytest.raises(UsageError, match="a loss named 'dice' is registered already"):
        register_loss("dice")(mine)
    with pytest.raises(UsageError, match="'my loss' as the name of a loss"):
        register_loss("my loss")(mine)
    with pytest.raises(UsageError, match="'nowhere:loss' cannot be imported: ModuleNotFoundError"):
        Loss(["nowhere:loss"])


def test_losses_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        EntryPoint(name, value, "farvox.losses")
        for name, value in (("theirs", "farvox.losses:soft_dice"), ("broken", "farvox.losses:nothing"))
    )
    monkeypatch.setattr("farvox._plugins.entry_points", lambda **which: points.select(**which))
    monkeypatch.setattr("farvox.losses.terms._REGISTRY.items", dict(_REGISTRY.items))
    logits, target = _random()
    assert {"theirs", "broken", "dice"} <= set(list_losses())
    torch.testing.assert_close(Loss(["theirs"])(logits, target), soft_dice(logits, target))
    with pytest.raises(UsageError, match=r"'farvox.losses:nothing' cannot be imported: AttributeError"):
        Loss(["broken"])


def test_float32_under_autocast() -> None:
    logits, target = _random()
    with torch.autocast("cpu", torch.bfloat16):
        loss = Loss(["cross_entropy", "dice"], WEIGHTS)(logits.bfloat16(), target)
    assert loss.dtype == torch.float32


def test_unknown_term_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'dicce'.*did you mean 'dice'\?"):
        Loss(["cross_entropy", "dicce"])


@pytest.mark.parametrize("terms", [[], ["dice", "dice"]])
def test_none_or_twice(terms: list[str]) -> None:
    with pytest.raises(UsageError, match="each once"):
        Loss(terms)
