"""The conference networks: the paper's counts, one computation on grids and at points, what smoothing and pairs do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox import create_model
from farvox.errors import ModelError

NAMES = ("obelisk-dense", "obelisk-mlp", "obelisk-unary", "obelisk-random")


def made(name: str, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    network = create_model(name, classes=3, **({"offsets": 32} | options))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():  # statistics as after training, so that answers differ by about 1
        network.train()(noise(2, 1, 12, 12, 12, seed=9))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def centres(*shape: int) -> torch.Tensor:
    """(1, S, 3) centres of evenly divided cells."""
    axes = [(2 * torch.arange(size) + 1) / size - 1 for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3)


@pytest.mark.parametrize(("name", "count"), list(zip(NAMES, (129_536, 122_368, 126_464, 123_392), strict=True)))
def test_the_counts_of_table_1(name: str, count: int) -> None:
    network = create_model(name, classes=8)
    offsets = network.obelisk.offsets
    learned = offsets.numel() if offsets.requires_grad else 0
    layers = [module for module in network.modules() if isinstance(module, nn.Conv1d)]
    weights = network.obelisk.weight.numel() + sum(layer.weight.numel() for layer in layers)
    # The paper's rule: a bias for every 1×1 layer but the last, nothing for batch norm.
    biases = network.obelisk.weight.shape[0] + sum(layer.out_channels for layer in layers if layer is not network.head)
    assert learned + weights + biases == count
    assert network.obelisk.weight.numel() == 65_536
    assert offsets.shape == ((1024, 3) if name == "obelisk-unary" else (1024, 2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_offsets_start_narrow(name: str) -> None:
    offsets = create_model(name).obelisk.offsets
    assert offsets.std().item() == pytest.approx(0.05, rel=0.05)
    assert offsets.mean().item() == pytest.approx(0, abs=0.003)


def test_random_offsets_stay_while_the_rest_learns() -> None:
    network = made("obelisk-random").train()
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    network(noise(1, 1, 8, 8, 8)).square().mean().backward()
    optimiser.step()
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert still == ["obelisk.offsets"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stride", "grid"), [(1, (9, 6, 7)), (2, (5, 3, 4)), (4, (3, 2, 2))])
def test_grid_and_points_are_one_computation(name: str, stride: int, grid: tuple[int, int, int]) -> None:
    network, image = made(name, stride=stride), noise(2, 1, 9, 6, 7)
    with torch.no_grad():
        on_grid = network.logits_on_grid(image)
        at_points = network.forward_points(network.prepare(image), centres(*grid).expand(2, -1, -1))
        assert on_grid.shape[2:] == grid
        torch.testing.assert_close(at_points.unflatten(2, grid), on_grid, rtol=0, atol=1e-5)
        if stride == 1:
            torch.testing.assert_close(network(image), on_grid, rtol=0, atol=1e-6)


def test_a_point_is_answered_the_same_alone_and_in_a_batch() -> None:
    network, image = made("obelisk-dense"), noise(2, 1, 8, 9, 10)
    points = 2 * torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(1)) - 1
    with torch.no_grad():
        prepared = network.prepare(image)
        together = network.forward_points(prepared, points)
        alone = network.forward_points(prepared[1:], points[1:, 17:18])
    torch.testing.assert_close(alone[0, :, 0], together[1, :, 17], rtol=0, atol=1e-5)
    assert together.std(2).min() > 0.1


def test_gradients_reach_the_kernel_from_points() -> None:
    network, image = made("obelisk-dense").train(), noise(1, 1, 8, 9, 10)
    network.forward_points(network.prepare(image), centres(4, 4, 4)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_inference_without_gradients_answers_as_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = made("obelisk-dense"), noise(2, 1, 15, 9, 11)
    whole = network(image).detach()
    for points in (1, 65, 1 << 17):  # slabs of one, two and all rows of 5 × 6 grid points
        monkeypatch.setattr("farvox.models.obelisk_dense._SLAB_POINTS", points)
        monkeypatch.setattr("farvox.ops.pointwise.cpu._CHUNK", 1 + points // 3)
        with torch.no_grad():
            torch.testing.assert_close(network(image), whole, rtol=0, atol=1e-5)


def test_a_coarse_grid_is_enlarged_by_two_and_two() -> None:
    network, image = made("obelisk-dense", stride=4), noise(1, 1, 13, 10, 7)
    with torch.no_grad():
        half = F.interpolate(network.logits_on_grid(image), size=(7, 5, 4), mode="trilinear")
        torch.testing.assert_close(network(image), F.interpolate(half, size=(13, 10, 7), mode="trilinear"))


def test_smoothing_averages_and_fades_at_the_border() -> None:
    network = made("obelisk-dense", smoothing=[3])
    spot = torch.zeros(1, 1, 7, 5, 6)
    spot[0, 0, 3, 2, 1] = 27
    smooth = network.prepare(spot)
    expected = torch.zeros_like(spot)
    expected[0, 0, 2:5, 1:4, 0:3] = 1
    torch.testing.assert_close(smooth, expected)
    even = network.prepare(torch.ones(1, 1, 4, 1, 3))  # beyond the border lie zeros
    torch.testing.assert_close(even[0, 0, :, 0, 1], torch.tensor([6, 9, 9, 6]) / 27)
    assert network.prepare(spot).sum() == pytest.approx(27)
    image = noise(1, 1, 3, 3, 3)
    assert made("obelisk-dense", smoothing=[]).prepare(image) is image


def test_equal_pairs_cancel_whatever_the_image() -> None:
    network = made("obelisk-dense")
    with torch.no_grad():
        network.obelisk.offsets[:, 1] = network.obelisk.offsets[:, 0]
        first, second = network(noise(1, 1, 8, 8, 8)), network(noise(1, 1, 8, 8, 8, seed=1))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_single_offsets_of_zero_see_their_own_voxel_alone() -> None:
    network = made("obelisk-unary", smoothing=[], stride=1)
    image = noise(1, 1, 6, 7, 5)
    touched = image.clone()
    touched[0, 0, 2, 6, 1] += 1
    with torch.no_grad():
        network.obelisk.offsets.zero_()
        changed = (network(touched) - network(image)).abs().amax((0, 1)) > 1e-4
    assert changed.nonzero().tolist() == [[2, 6, 1]]


def test_an_offset_of_one_voxel_reads_the_neighbour() -> None:
    network = made("obelisk-unary", smoothing=[], stride=1)
    image = noise(1, 1, 6, 7, 5)
    touched = image.clone()
    touched[0, 0, 2, 6, 1] += 1
    with torch.no_grad():
        network.obelisk.offsets.copy_(torch.tensor([2 / 6, 0, -2 / 5]))
        changed = (network(touched) - network(image)).abs().amax((0, 1)) > 1e-4
    assert changed.nonzero().tolist() == [[1, 6, 2]]


def test_one_voxel_is_answered_too() -> None:
    for stride in (1, 2, 4):
        network = made("obelisk-dense", stride=stride).train()
        assert torch.isfinite(network(noise(1, 1, 1, 1, 1))).all()
        assert network.logits_on_grid(noise(1, 1, 1, 1, 1)).shape == (1, 3, 2, 1, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 3},
        {"stride": True},
        {"smoothing": [4]},
        {"smoothing": 5},
        {"smoothing": [3.0]},
        {"offsets": 0},
        {"offsets": 30},
        {"compat": "pulished"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_impossible_options(name: str, options: dict) -> None:
    with pytest.raises(ModelError, match="expected: ") as error:
        create_model(name, **options)
    assert "\n" not in str(error.value)
