"""The optimiser: which values decay, and how Adam's decay differs from AdamW's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farvox.recipes import load_recipe
from farvox.training.optimiser import make_optimiser


def settings(**changes: object):
    return load_recipe("default").train.model_copy(update=changes)


def names_that_decay(network: nn.Module, optimiser: torch.optim.Optimizer) -> list[str]:
    decayed = {id(p) for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(network.parameters()))
    return [name for name, p in network.named_parameters() if id(p) in decayed]


def test_kernels_of_convolutions_alone_decay() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.ConvTranspose3d(2, 2, 3), nn.Linear(2, 2))
    chosen = make_optimiser(network, settings(weight_decay_on="convolutions"))
    assert names_that_decay(network, chosen) == ["0.weight", "2.weight"]
    every = make_optimiser(network, settings())
    assert len(names_that_decay(network, every)) == 8
    assert len(every.param_groups) == 1


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_decay_beside_the_step_or_in_the_gradient(kind: str) -> None:
    network = nn.Conv3d(1, 1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimiser = make_optimiser(
        network, settings(optimiser=kind, learning_rate=0.1, weight_decay=0.5, weight_decay_on="convolutions")
    )
    network.weight.grad = torch.full_like(network.weight, -0.25)
    optimiser.step()
    # The first step of Adam is the learning rate against the sign of its gradient: -0.25 alone, or -0.25 + 0.5 · 2.
    wanted = 2 - 0.1 if kind == "adam" else 2 * (1 - 0.1 * 0.5) + 0.1
    assert network.weight.item() == pytest.approx(wanted, abs=1e-6)
