"""The one-pass convolution against the same steps in torch, float64."""

from __future__ import annotations

import pytest
import torch

from farvox.blocks import FusedConvUnit
from farvox.errors import UsageError
from farvox.ops import fused_conv
from farvox.ops.fused_conv import cpu


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("batch", "coarse", "channels", "outputs", "head", "shape", "coarse_shape"),
    [
        (1, 12, 4, 9, 9, (13, 11, 17), (7, 6, 9)),
        (2, 0, 1, 4, 0, (5, 1, 3), (1, 1, 1)),
        (3, 2, 3, 5, 2, (9, 30, 8), (3, 1, 4)),
        (1, 1, 1, 3, 0, (1, 1, 1), (2, 2, 2)),
        (2, 3, 0, 2, 3, (6, 5, 4), (3, 3, 2)),
    ],
)
@pytest.mark.parametrize("cache", [None, 1])
def test_against_the_steps_in_float64(
    batch: int,
    coarse: int,
    channels: int,
    outputs: int,
    head: int,
    shape: tuple[int, ...],
    coarse_shape: tuple[int, ...],
    cache: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cache:
        monkeypatch.setattr(cpu, "_CACHE_VALUES", cache)  # a few rows at a time
    tensors = {
        "image": _random(batch, channels, *shape),
        "weight": _random(outputs, coarse + channels, 3, 3, 3, seed=1),
        "bias": _random(outputs, seed=2),
        "coarse": _random(batch, coarse, *coarse_shape, seed=3) if coarse else None,
        "head_weight": _random(head, outputs, seed=4) if head else None,
        "head_bias": _random(head, seed=5) if head else None,
    }
    exact = {key: None if tensor is None else tensor.double() for key, tensor in tensors.items()}
    expected = fused_conv(**exact, slope=0.1, backend="reference")
    found = fused_conv(**tensors, slope=0.1, backend="cpu")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_a_constant_stays_constant_inside() -> None:
    weight = torch.full((1, 2, 3, 3, 3), 1 / 54)
    arguments = {"weight": weight, "bias": torch.zeros(1), "coarse": torch.ones(1, 1, 4, 3, 2)}
    found = fused_conv(torch.ones(1, 1, 8, 6, 4), **arguments, slope=1.0, backend="cpu")
    torch.testing.assert_close(found[0, 0, 1:-1, 1:-1, 1:-1], torch.ones(6, 4, 2))
    assert found[0, 0, 0, 0, 0].item() == pytest.approx(8 / 27)  # zeros around


def test_unit_answers_what_it_learned() -> None:
    torch.manual_seed(0)
    unit, head = FusedConvUnit(5, 3, 0.05), torch.nn.Conv3d(3, 2, 1)
    image, coarse = _random(2, 2, 9, 7, 5), _random(2, 3, 5, 4, 3, seed=1)
    for _ in range(5):
        unit(image * 2 + 1, coarse)  # statistics move away from where they start
    unit.eval()
    with torch.no_grad():
        fast = unit(image, coarse, head)
    torch.testing.assert_close(fast, unit(image, coarse, head), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["training norm", "no statistics", "hook", "other activation", "other norm"])
def test_a_unit_that_was_changed_answers_as_changed(change: str) -> None:
    torch.manual_seed(0)
    unit = FusedConvUnit(2, 3, 0.05)
    image, calls = _random(2, 2, 6, 5, 4), []
    unit(image * 3 + 1)
    unit.eval()
    if change == "training norm":
        unit[1].train()
        unit[1].momentum = 0.0
    elif change == "no statistics":
        unit[1] = torch.nn.BatchNorm3d(3, track_running_stats=False).eval()
    elif change == "other activation":
        unit[2] = torch.nn.ELU()
    elif change == "other norm":
        unit[1] = torch.nn.InstanceNorm3d(3)
    else:
        unit[1].register_forward_hook(lambda *_: calls.append(1))
    expected = unit(image).detach()
    calls.clear()
    with torch.no_grad():
        torch.testing.assert_close(unit(image), expected)
    assert len(calls) == (change == "hook")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(3, 2, 3, 3, 3)}, r"weight of shape .*; expected: \(O, 1, 3, 3, 3\)"),
        ({"backend": "fast"}, "no backend 'fast'"),
        ({"bias": torch.zeros(1)}, r"bias of shape \(1,\); expected: \(3,\)"),
        ({"head_weight": torch.zeros(2, 4)}, r"head_weight of shape .*; expected: \(H, 3\)"),
        ({"head_bias": torch.zeros(2)}, "head_bias of shape .* with a head_weight"),
        ({"coarse": torch.zeros(2, 1, 2, 2, 2)}, r"coarse of shape .*; expected: \(1, D, i, j, k\)"),
        ({"image": torch.zeros(1, 4, 4, 4)}, "image of shape"),
        ({"image": torch.zeros(1, 1, 4, 4, 4).double()}, "backend 'cpu' cannot run: it needs float32 on the CPU"),
        ({"bias": torch.zeros(3, requires_grad=True)}, "only the reference has gradients"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    call = {"image": torch.zeros(1, 1, 4, 4, 4), "weight": torch.zeros(3, 1, 3, 3, 3), "bias": torch.zeros(3)}
    with pytest.raises(UsageError, match=message):
        fused_conv(**{**call, "backend": "cpu", **change})
