"""Cross-entropy against torch's own and values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from farvox.errors import UsageError
from farvox.labels import IGNORE
from farvox.losses import class_weights, cross_entropy

WEIGHTS = torch.tensor([0.5, 1.3, 0.7])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 3, generator=generator) * 2
    target = torch.randint(0, 3, (2, 4, 5, 3), generator=generator).to(torch.uint8)
    target[0, 0] = IGNORE
    return logits.requires_grad_(), target


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_torch(batch: tuple[torch.Tensor, torch.Tensor], weights: torch.Tensor | None) -> None:
    logits, target = batch
    expected = F.cross_entropy(logits, target.long(), weights, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, target, weights), expected)


@pytest.mark.parametrize("keep_fraction", [0.5, 0.25])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_hardest_fraction(
    batch: tuple[torch.Tensor, torch.Tensor], keep_fraction: float, weights: torch.Tensor | None
) -> None:
    logits, target = batch
    voxels = []
    for b, i, j, k in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        label = int(target[b, i, j, k])
        if label != IGNORE:
            weight = 1.0 if weights is None else float(weights[label])
            scores = logits[b, :, i, j, k].detach().double()
            voxels.append((weight * float(scores.logsumexp(0) - scores[label]), weight))
    hardest = sorted(voxels, reverse=True)[: round(keep_fraction * len(voxels))]
    expected = sum(loss for loss, _ in hardest) / sum(weight for _, weight in hardest)
    assert cross_entropy(logits, target, weights, keep_fraction).item() == pytest.approx(expected, rel=1e-5)


def test_only_the_hardest_voxels_get_a_gradient(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    cross_entropy(logits, target, keep_fraction=0.25).backward()
    reached = (logits.grad.abs().sum(1) > 0).sum().item()
    assert reached == round(0.25 * (target != IGNORE).sum().item())


@pytest.mark.parametrize("keep_fraction", [1.0, 0.25])
def test_ignored_voxels_have_no_gradient(batch: tuple[torch.Tensor, torch.Tensor], keep_fraction: float) -> None:
    logits, target = batch
    cross_entropy(logits, target, WEIGHTS, keep_fraction).backward()
    assert torch.all(logits.grad[0, :, 0] == 0)
    assert torch.any(logits.grad != 0)


@pytest.mark.parametrize("keep_fraction", [1.0, 0.25])
def test_all_ignored_is_zero(batch: tuple[torch.Tensor, torch.Tensor], keep_fraction: float) -> None:
    logits, target = batch
    loss = cross_entropy(logits, torch.full_like(target, IGNORE), WEIGHTS, keep_fraction)
    loss.backward()
    assert loss.item() == 0
    assert torch.all(logits.grad == 0)


def test_one_voxel_stays() -> None:
    logits = torch.tensor([[[[[0.0, 5.0]]], [[[0.0, 0.0]]]]])  # voxel 0 undecided, voxel 1 sure of class 0
    target = torch.zeros(1, 1, 1, 2, dtype=torch.uint8)
    assert cross_entropy(logits, target, keep_fraction=0.01).item() == pytest.approx(math.log(2))


def test_half_precision_is_computed_in_float32(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(half, target, WEIGHTS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(half.float(), target, WEIGHTS), rtol=0, atol=0)


@pytest.mark.parametrize("keep_fraction", [0.0, -0.5, 1.5])
def test_keep_outside_range(batch: tuple[torch.Tensor, torch.Tensor], keep_fraction: float) -> None:
    with pytest.raises(UsageError, match="at most 1"):
        cross_entropy(*batch, keep_fraction=keep_fraction)


def test_class_weights_by_hand() -> None:
    # 1/sqrt: 1/10, 1/2, 1/4 → foreground mean 3/8 → 4/3 and 2/3, background 1/2.
    torch.testing.assert_close(class_weights(torch.tensor([100, 4, 16])), torch.tensor([0.5, 4 / 3, 2 / 3]))


def test_class_weights_with_an_absent_class() -> None:
    torch.testing.assert_close(class_weights(torch.tensor([100, 0, 4, 16])), torch.tensor([0.5, 1.0, 4 / 3, 2 / 3]))
    assert torch.equal(class_weights(torch.tensor([7, 0])), torch.tensor([0.5, 1.0]))
