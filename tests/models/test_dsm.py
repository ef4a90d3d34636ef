"""The depth-shift U-Nets: counts of the paper, reach between slices, and the 2D U-Net they grow from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from farvox import create_model
from farvox.blocks import insert_depth_shift
from farvox.errors import ModelError
from farvox.models import count_parameters


@pytest.mark.parametrize(
    ("alpha", "printed", "ours"),
    [(0.25, 1_115_606, 1_116_059), (0.5, 1_216_266, 1_217_299), (1.0, 1_619_330, 1_621_955)],
)
def test_distill_counts_of_the_paper(alpha: float, printed: int, ours: int) -> None:
    with torch.device("meta"):
        found = count_parameters(create_model("dsm-distill", in_channels=4, classes=3, alpha=alpha))
    assert found == ours
    assert abs(found - printed) < 0.002 * printed
    # By hand: 9·m² + m values for m = αC channels, after the first convolution of each pair.
    middles = (16, 32, 64, 128, 128, 128, 64, 32, 16)
    assert found - 1_082_211 == sum(9 * (m := int(alpha * c)) ** 2 + m for c in middles)


def test_kernel_and_position_change_the_count_as_they_should() -> None:
    with torch.device("meta"):
        pointwise = create_model("dsm-distill", in_channels=4, classes=3, kernel=1)
        each = create_model("dsm-distill", in_channels=4, classes=3, position="each")
    middles, ends = (16, 32, 64, 128, 128, 128, 64, 32, 16), (16, 32, 64, 128, 128, 64, 32, 16, 16)
    assert count_parameters(pointwise) - 1_082_211 == sum((c // 2) ** 2 + c // 2 for c in middles)
    assert count_parameters(each) - 1_082_211 == sum(9 * (c // 2) ** 2 + c // 2 for c in (*middles, *ends))


def test_cost_grows_by_the_distillation_alone() -> None:
    found = {}
    for name in ("dsm-residual", "dsm-distill"):
        network = create_model(name, in_channels=4, classes=3).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 4, 32, 48, 2))
        found[name] = counter.get_total_flops() / 2 / (32 * 48 * 2)
    assert found["dsm-residual"] == 38_640  # as unet2d; the paper counts its additions too: 38,735
    levels = {16: 1, 32: 1 / 4, 64: 1 / 16, 128: 1 / 64}
    pairs = 2 * sum(9 * (c // 2) ** 2 * pixels for c, pixels in levels.items()) + 9 * 64**2 / 256
    assert found["dsm-distill"] == 38_640 + pairs


@pytest.mark.parametrize(
    ("name", "options", "reach"),
    [
        ("dsm-distill", {}, 9),
        ("dsm-distill", {"alpha": 0.25}, 9),
        ("dsm-residual", {}, 9),
        ("dsm-residual", {"position": "each"}, 18),
    ],
)
def test_slices_see_their_neighbours_and_no_further(name: str, options: dict[str, Any], reach: int) -> None:
    torch.manual_seed(0)
    network = create_model(name, **options).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 2.0)  # activations stay open, so that none cuts the only path by chance
    middle = reach + 1
    volume = torch.randn(1, 1, 32, 32, 2 * middle + 1, dtype=torch.float64, requires_grad=True)
    network(volume)[..., middle].square().sum().backward()
    seen = volume.grad.abs().amax((0, 1, 2, 3)).nonzero().flatten() - middle
    assert seen.tolist() == list(range(-reach, reach + 1))


class _Slices(nn.Module):
    """`unet2d`, which takes volumes, as a network of images."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = create_model("unet2d", in_channels=2, classes=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.unet(images[..., None])[..., 0]


@pytest.mark.parametrize("kind", ["residual", "distill"])
@pytest.mark.parametrize(("position", "every"), [("first", 2), ("each", 1)])
def test_is_the_2d_unet_with_shifts_inserted(kind: str, position: str, every: int) -> None:
    torch.manual_seed(0)
    inserted = insert_depth_shift(_Slices(), kind, every=every)
    for site in inserted.sites:
        for weight in site.shift.parameters():
            nn.init.normal_(weight, std=0.2)
    network = create_model(f"dsm-{kind}", in_channels=2, classes=3, position=position)
    ours = network.state_dict()
    theirs = inserted.network.unet.state_dict()
    parts = {"first": "0", "first_norm": "1", "second": "3", "second_norm": "4"}
    shifts = [site.shift.state_dict() for site in inserted.sites]
    named = [name for name, _ in network.named_modules() if name.endswith("_shift")]
    assert len(named) == len(shifts)
    state = {}
    for key in ours:
        pieces = key.split(".")
        if key in theirs:
            state[key] = theirs[key]
        elif pieces[2] in parts:
            state[key] = theirs[".".join((*pieces[:2], parts[pieces[2]], pieces[3]))]
        else:
            state[key] = shifts[named.index(".".join(pieces[:3]))][".".join(pieces[3:])]
    network.load_state_dict(state)
    volume = torch.randn(2, 2, 19, 24, 5)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(volume), inserted.eval()(volume))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dsm-distill", {"alpha": 0.2}, "16 channels are too few for a depth shift with alpha=0.2"),
        ("dsm-residual", {"alpha": 2}, "alpha=2 of a depth shift; expected: a fraction above 0 up to 1"),
        ("dsm-distill", {"kernel": 4}, "kernel=4 of a depth shift; expected: an odd number"),
        ("dsm-distill", {"position": "last"}, "position='last' for 'dsm-distill'; expected: first or each"),
        ("dsm-residual", {"kernel": 3}, "'dsm-residual' has no option 'kernel'"),
    ],
)
def test_impossible_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)
