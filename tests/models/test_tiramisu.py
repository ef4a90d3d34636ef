"""Tiramisu: printed counts, what flows where, and dense blocks that save memory without changing a bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from farvox import create_model
from farvox.blocks import DenseBlock
from farvox.errors import ModelError
from farvox.models import count_parameters, tiramisu


def without_norms(network: nn.Module) -> int:
    norms = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm3d))
    return count_parameters(network) - norms


@pytest.mark.parametrize(
    ("name", "layers", "count"),
    [
        ("p3a", (7, 8, 9, 12, 15, 16, 17), 22_962_289),  # printed 22,692,289
        ("p3b", (12,) * 7, 23_487_169),
        ("p4a", (9, 10, 12, 15, 17, 20, 17, 15, 12), 49_382_353),
    ],
)
def test_counts_of_table_1(name: str, layers: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        assert without_norms(getattr(tiramisu, f"build_{name}")(in_channels=1, classes=1)) == count
    depth, width, total, skips = len(layers) // 2, 48, 27 * 48, []
    for number in layers[:depth]:
        total += sum(27 * (width + 16 * n) * 16 for n in range(number))
        width += 16 * number
        skips.append(width)
        total += width * width
    total += sum(27 * (width + 16 * n) * 16 for n in range(layers[depth]))
    for below, number in zip(layers[depth:], layers[depth + 1 :], strict=False):
        width = 16 * below + skips.pop()
        total += 27 * (16 * below) ** 2 + 16 * below
        total += sum(27 * (width + 16 * n) * 16 for n in range(number))
    assert total + width + 16 * layers[-1] + 1 == count


def test_only_what_a_block_adds_goes_up() -> None:
    network = create_model("tiramisu-p3b", layers=[1, 2, 3, 4, 5], growth=2, first=3)
    sizes: dict[nn.Module, list[tuple[int, ...]]] = {}
    for part in (*network.down, network.bottom, *network.lift, *network.up):
        part.register_forward_hook(
            lambda module, inputs, output: sizes.update({module: [*(i.shape[1] for i in inputs), output.shape[1]]})
        )
    network(torch.zeros(1, 1, 8, 8, 4))
    assert list(sizes.values()) == [
        [3, 2],  # 3 in, one layer of 2 added
        [5, 4],  # 3 + 2 in
        [9, 6],
        [6, 6],  # lifted: what the bottom added
        [6, 9, 8],  # beside the skip
        [8, 8],
        [8, 5, 10],
    ]
    assert network.head.in_channels == 8 + 5 + 10


def test_recomputing_changes_neither_gradients_nor_statistics() -> None:
    results = []
    for recompute in (True, False):
        torch.manual_seed(0)
        network = create_model("tiramisu-p3a", layers=[2, 2, 3, 2, 2], growth=3, first=4, recompute=recompute)
        torch.manual_seed(1)  # dropout
        image = torch.randn(2, 1, 8, 12, 4, requires_grad=True)
        for _ in range(2):
            network(image).square().sum().backward()
        results.append((network.state_dict(), [p.grad for p in network.parameters()], image.grad))
    (state, gradients, at_image), (other_state, other_gradients, other_image) = results
    assert all(torch.equal(state[key], other_state[key]) for key in state)
    assert int(state["bottom.layers.0.norm.num_batches_tracked"]) == 2
    assert all(torch.equal(one, two) for one, two in zip(gradients, other_gradients, strict=True))
    assert torch.equal(at_image, other_image)


def test_a_dense_layer_sees_the_input_and_all_layers_before_it() -> None:
    torch.manual_seed(0)
    block = DenseBlock(2, 3, growth=1).double().eval()
    image = torch.randn(1, 2, 4, 5, 6, dtype=torch.float64)
    maps = [image]
    with torch.no_grad():
        for layer in block.layers:
            shown = torch.relu(torch.cat(maps, 1) / (1 + 1e-5) ** 0.5)  # fresh statistics: mean 0, variance 1
            maps.append(nn.functional.conv3d(shown, layer.conv.weight, padding=1))
        torch.testing.assert_close(block(image[:, :1], image[:, 1:]), torch.cat(maps[1:], 1))


def test_memory_kept_for_the_gradient_grows_with_depth_not_with_its_square() -> None:
    def kept(layers: int, recompute: bool) -> int:
        """Bytes that a forward pass leaves behind for the backward pass."""
        block, image = DenseBlock(4, layers, 4, recompute=recompute), torch.randn(1, 4, 16, 16, 16)
        block(image)  # what is set up once
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            answer = block(image)
        assert answer.requires_grad
        return sum(event.self_cpu_memory_usage for event in profile.events())

    assert kept(16, recompute=False) > 6 * kept(16, recompute=True)
    assert kept(16, recompute=True) < 2.2 * kept(8, recompute=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2, 2]}, r"layers=\[2, 2\] for a Tiramisu; expected: 3, 5, 7"),
        ({"layers": [2]}, "layers"),
        ({"layers": [2, 0, 2]}, "positive whole numbers"),
        ({"growth": 0}, "growth=0"),
        ({"first": 1.5}, "first=1.5"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    for name in ("tiramisu-p3a", "tiramisu-p4a"):
        with pytest.raises(ModelError, match=message):
            create_model(name, **options)
