"""Soft Dice against sums written out, and its treatment of absent classes and ignored voxels."""

from __future__ import annotations

import pytest
import torch

from farvox.labels import IGNORE
from farvox.losses import soft_dice


def _random(classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, classes, 3, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (2, 3, 4, 5), generator=generator).to(torch.uint8)
    target[1, 2] = IGNORE
    return logits.requires_grad_(), target


def test_by_hand() -> None:
    # Foreground probability 0.8, 0.6 and 0.5; only the first voxel is foreground: 2·0.8 / (1.9 + 1).
    foreground = torch.tensor([0.8, 0.6, 0.5])
    logits = torch.stack([(1 - foreground).log(), foreground.log()]).reshape(1, 2, 1, 1, 3)
    target = torch.tensor([1, 0, 0], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert soft_dice(logits, target).item() == pytest.approx(1 - 1.6 / 2.9)


def test_equals_written_out_sums() -> None:
    logits, target = _random()
    valid = target != IGNORE
    probability = logits.softmax(1)
    values = []
    for index in range(1, 4):
        p, t = probability[:, index][valid], (target[valid] == index).double()
        values.append(2 * (p * t).sum() / (p.sum() + t.sum()))
    torch.testing.assert_close(soft_dice(logits, target), 1 - torch.stack(values).mean())


def test_gradient_is_exact() -> None:
    logits, target = _random(3)
    assert torch.autograd.gradcheck(lambda x: soft_dice(x, target), logits)


def test_perfect_and_opposite() -> None:
    target = torch.tensor([0, 1, 2, 1], dtype=torch.uint8).reshape(1, 1, 1, 4)
    sure = 60 * torch.nn.functional.one_hot(target.long(), 3).movedim(-1, 1).float()
    assert soft_dice(sure, target).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(sure.roll(1, dims=1), target).item() == pytest.approx(1, abs=1e-6)


def test_absent_class_is_left_out() -> None:
    logits, target = _random()
    target[target == 3] = 0
    valid = target != IGNORE
    p = logits.softmax(1)
    values = [2 * p[:, c][valid & (target == c)].sum() / (p[:, c][valid].sum() + (target == c).sum()) for c in (1, 2)]
    torch.testing.assert_close(soft_dice(logits, target), 1 - torch.stack(values).mean())


@pytest.mark.parametrize("fill", [0, IGNORE])
def test_no_foreground_is_zero_with_zero_gradient(fill: int) -> None:
    logits, target = _random()
    loss = soft_dice(logits, torch.full_like(target, fill))
    loss.backward()
    assert loss.item() == 0
    assert torch.all(logits.grad == 0)


def test_ignored_voxels_have_no_gradient() -> None:
    logits, target = _random()
    soft_dice(logits, target).backward()
    assert torch.all(logits.grad[1, :, 2] == 0)
    assert torch.all(logits.grad[0] != 0)


def test_autocast_does_not_change_it() -> None:
    logits, target = _random()
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = soft_dice(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, soft_dice(half.float(), target), rtol=0, atol=0)
