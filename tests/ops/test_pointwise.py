"""Chains of 1×1×1 layers: the piecewise way against plain torch, and blocks against themselves."""

from __future__ import annotations

import pytest
import torch

from farvox.blocks import PointwiseDense
from farvox.ops import PointwiseLayer, pointwise_chain
from farvox.ops.pointwise import cpu, reference


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _steps(layout: str) -> list[PointwiseLayer]:
    """One letter a layer from 6 channels on: f a factor a channel, r replaces by 5, b puts 3 behind."""
    steps, width = [], 6
    for n, letter in enumerate(layout):
        if letter == "f":
            steps.append(PointwiseLayer(_random(width, seed=n), _random(width, seed=n + 9), slope=0.0))
            continue
        count = {"r": 5, "b": 3}[letter]
        slope = (1.0, 0.1, 0.0)[n % 3]
        steps.append(
            PointwiseLayer(_random(count, width, seed=n), _random(count, seed=n + 9), slope, concatenate=letter == "b")
        )
        width = count + (width if letter == "b" else 0)
    return steps


@pytest.mark.parametrize("layout", ["r", "b", "f", "fr", "bb", "frbbbr", "rbrbb", "rr"])
@pytest.mark.parametrize("piece", [3, 2048])
def test_pieces_against_plain_torch(layout: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_CHUNK", piece)
    x, steps = _random(2, 6, 10), _steps(layout)
    before = x.clone()
    exact = tuple(
        PointwiseLayer(step.weight.double(), step.bias.double(), step.slope, step.concatenate) for step in steps
    )
    expected = reference.chain(x.double(), exact)
    found = pointwise_chain(x, steps)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(x, before)


def test_a_chain_by_hand() -> None:
    x = torch.tensor([[[2.0, -1.0]]])
    double = PointwiseLayer(torch.tensor([[2.0]]), torch.tensor([1.0]), slope=0.0, concatenate=True)
    total = PointwiseLayer(torch.tensor([[1.0, 10.0]]), torch.tensor([0.5]))
    assert pointwise_chain(x, [double, total]).tolist() == [[[52.5, -0.5]]]


def test_learning_goes_through_the_reference() -> None:
    x, steps = _random(2, 6, 10).requires_grad_(), _steps("frb")
    pointwise_chain(x, steps).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_bias_alone_is_learned_too() -> None:
    bias = torch.zeros(5, requires_grad=True)
    pointwise_chain(_random(1, 6, 4), [PointwiseLayer(_random(5, 6), bias)]).sum().backward()
    assert bias.grad.tolist() == [4] * 5


def test_dense_block_answers_what_it_learned() -> None:
    torch.manual_seed(0)
    block = PointwiseDense(6, 4, growth=3, layers=2, slope=0.05)
    image = _random(2, 6, 5, 4, 3)
    for _ in range(3):
        block(image * 2 + 1)
    block.eval()
    with torch.no_grad():
        fast = block(image)
    torch.testing.assert_close(fast, block(image), rtol=1e-4, atol=1e-5)
