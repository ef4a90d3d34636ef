"""2D networks, of another library too, that take volumes because depth shifts were inserted into them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from farvox.blocks import insert_depth_shift
from farvox.errors import ModelError
from farvox.models import count_parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet, SegResNet, UNet


def _basic() -> nn.Module:
    return BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 16, 8))


def _segres() -> nn.Module:
    return SegResNet(2, 8, 1, 3, blocks_down=(1, 2), blocks_up=(1,))


def _dyn() -> nn.Module:
    return DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 16], res_block=True)


def _unet() -> nn.Module:
    return UNet(2, 1, 3, (8, 16, 16), (2, 2), num_res_units=2)


def _attention() -> nn.Module:
    return AttentionUnet(2, 1, 3, (16, 32, 32), (2, 2))


# With alpha = 1/2 a convolution of 8 channels is followed by a distillation of 4 (4·4·9 + 4 = 148 values) and one of 16
# by a distillation of 8 (8·8·9 + 8 = 584).
SHIFTED: list[tuple[Any, int, int, int, int]] = [
    # network, every, wanted shifts after 8 channels, after 16, and how many of them lie one behind the other
    (_basic, 2, 4, 5, 9),  # the first of nine double convolutions: 8 8 16 16 16 | 16 16 8 8
    (_basic, 1, 8, 10, 18),
    (_segres, 2, 3, 2, 5),
    (_segres, 1, 5, 5, 10),
    (_dyn, 2, 2, 3, 5),
    (_unet, 2, 3, 2, 4),  # one of the five is the shortcut of a residual unit, beside another one
]
monai_networks = pytest.mark.parametrize(("make", "every", "eights", "sixteens", "chain"), SHIFTED)


def _seeded(make: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make().double().eval()


def _randomise(network: nn.Module) -> None:
    for site in network.sites:
        for weight in site.shift.parameters():
            nn.init.normal_(weight, std=0.3)


@monai_networks
def test_parameters_grow_by_the_distillations_alone(
    make: Any, every: int, eights: int, sixteens: int, chain: int
) -> None:
    plain = _seeded(make)
    grown = count_parameters(insert_depth_shift(plain, every=every)) - count_parameters(plain)
    assert grown == 148 * eights + 584 * sixteens
    assert count_parameters(insert_depth_shift(plain, "residual", every=every)) == count_parameters(plain)


@monai_networks
@pytest.mark.parametrize("kind", ["distill", "residual"])
def test_a_slice_sees_as_many_neighbours_as_there_are_shifts_in_a_row(
    make: Any, every: int, eights: int, sixteens: int, chain: int, kind: str
) -> None:
    network = insert_depth_shift(_seeded(make), kind, every=every)
    _randomise(network)
    middle = chain + 1
    volume = torch.randn(1, 1, 32, 32, 2 * middle + 1, dtype=torch.float64, requires_grad=True)
    network(volume)[..., middle].square().sum().backward()
    seen = (volume.grad.abs().amax((0, 1, 2, 3)) > 0).nonzero().flatten() - middle
    assert seen.tolist() == list(range(-chain, chain + 1))


def test_a_gated_network_sees_no_further_than_its_shifts() -> None:
    network = insert_depth_shift(_seeded(_attention))
    _randomise(network)
    shifts = len(network.sites)
    volume = torch.randn(1, 1, 16, 16, 2 * shifts + 5, dtype=torch.float64, requires_grad=True)
    network(volume)[..., shifts + 2].square().sum().backward()
    seen = volume.grad.abs().amax((0, 1, 2, 3)) > 0
    assert not seen[[0, 1, -2, -1]].any()
    assert seen[shifts : shifts + 5].all()


@monai_networks
def test_beyond_both_ends_lie_zeros(make: Any, every: int, eights: int, sixteens: int, chain: int) -> None:
    plain = _seeded(make)
    network = insert_depth_shift(plain, every=every)
    alone = copy.deepcopy(plain)
    for site in network.sites:
        way = 2 * site.shift.each_way  # what a single slice would get from before and from behind

        def silence(_conv: Any, _inputs: Any, maps: torch.Tensor, way: int = way) -> torch.Tensor:
            return torch.cat((maps[:, :-way], torch.zeros_like(maps[:, -way:])), 1)

        alone.get_submodule(site.name).register_forward_hook(silence)
    slices = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(slices[..., None])[..., 0], alone(slices))


@monai_networks
def test_equal_slices_get_the_plain_answer_away_from_the_ends(
    make: Any, every: int, eights: int, sixteens: int, chain: int
) -> None:
    plain = _seeded(make)
    network = insert_depth_shift(plain, every=every)
    image = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(image)
        found = network(image[..., None].expand(-1, -1, -1, -1, 2 * chain + 1))
    torch.testing.assert_close(found[..., chain], expected)
    assert (found[..., 0] - expected).abs().max() > 1e-3


def test_the_given_network_stays_as_it_was_and_its_weights_still_fit() -> None:
    plain = _seeded(_basic)
    before = copy.deepcopy(plain.state_dict())
    network = insert_depth_shift(plain)
    image = torch.randn(1, 1, 32, 32, 3, dtype=torch.float64)
    network.train()(image).sum().backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    assert all(torch.equal(plain.state_dict()[key], value) for key, value in before.items())
    assert not plain.training
    assert not any(module._forward_hooks for module in plain.modules())
    network.network.load_state_dict(before)
    assert torch.equal(network.network.conv_0.conv_0.conv.weight, plain.conv_0.conv_0.conv.weight)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_shift_with_their_own_weights(again: Any) -> None:
    network = insert_depth_shift(_seeded(_basic))
    volume = torch.randn(1, 1, 32, 32, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = network(volume)
        other = again(network)
        assert torch.equal(other(volume), expected)
        _randomise(network)
        assert torch.equal(other(volume), expected)
        assert not torch.equal(network(volume), expected)


def test_compiles_for_volumes_of_any_depth() -> None:
    torch._dynamo.reset()
    network = insert_depth_shift(_seeded(_segres))
    _randomise(network)
    compiled = torch.compile(network, backend="aot_eager")
    with torch.no_grad():
        for slices in (3, 6, 1):
            volume = torch.randn(2, 1, 16, 16, slices, dtype=torch.float64)
            torch.testing.assert_close(compiled(volume), network(volume))
    torch._dynamo.reset()


class _Twice(nn.Module):
    """One 3×3 convolution used twice, a depthwise one, a 1×1 head, and answers of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        once = self.first(x)
        twice = self.first(once)
        return {"once": once, "rest": (twice, [self.head(self.depthwise(twice)), "a word"])}


def test_modules_called_twice_shift_twice_and_every_tensor_becomes_a_volume() -> None:
    torch.manual_seed(0)
    network = insert_depth_shift(_Twice(), alpha=1.0, every=1)
    assert [site.name for site in network.sites] == ["first", "depthwise"]
    volume = torch.randn(1, 8, 5, 6, 9, requires_grad=True)
    answer = network(volume)
    twice, (scores, word) = answer["rest"]
    assert scores.shape == (1, 2, 5, 6, 9)
    assert word == "a word"
    for found, reach in ((answer["once"], 1), (twice, 2), (scores, 3)):
        (gradient,) = torch.autograd.grad(found[..., 4].square().sum(), volume, retain_graph=True)
        seen = gradient.abs().amax((0, 1, 2, 3)).nonzero().flatten() - 4
        assert seen.tolist() == list(range(-reach, reach + 1))


def test_several_heads_of_a_real_network() -> None:
    network = insert_depth_shift(BasicUNetPlusPlus(2, 1, 2, features=(8, 8, 8, 8, 8, 8), deep_supervision=True))
    answers = network(torch.randn(1, 1, 32, 16, 3))
    assert [tuple(answer.shape) for answer in answers] == [(1, 2, 32, 16, 3)] * 4


class _Pair(NamedTuple):
    scores: torch.Tensor
    loss: torch.Tensor


@dataclasses.dataclass(frozen=True)
class _Answer:
    scores: torch.Tensor
    loss: torch.Tensor


class _Answering(nn.Module):
    """Two convolutions, and an answer of the kind it is told."""

    def __init__(self, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.head, self.answer = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 1), answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(self.head(self.conv(x)))


@pytest.mark.parametrize(
    ("answer", "kind", "parts"),
    [
        (lambda y: _Pair(y, y.mean()), _Pair, lambda found: (found.scores, found.loss)),
        (lambda y: namedtuple("_Plain", "scores loss")(y, y.mean()), tuple, tuple),
        (lambda y: _Answer(y, y.mean()), _Answer, lambda found: (found.scores, found.loss)),
        (lambda y: {"scores": y, "loss": y.mean()}, dict, lambda found: (found["scores"], found["loss"])),
        (lambda y: OrderedDict(scores=y, loss=y.mean()), OrderedDict, lambda found: tuple(found.values())),
        (lambda y: [y, y.mean((0, 2, 3))], list, tuple),  # one value a class
    ],
)
def test_answers_keep_their_type_and_what_is_not_by_slice(answer: Any, kind: type, parts: Any) -> None:
    network = insert_depth_shift(_Answering(answer))
    plain = copy.deepcopy(network)
    plain.network.answer = lambda y: y
    volume = torch.randn(2, 1, 6, 5, 4)
    with torch.no_grad():
        found, expected = network(volume), plain(volume)
    assert isinstance(found, kind)
    scores, loss = parts(found)
    assert torch.equal(scores, expected)
    torch.testing.assert_close(loss, expected.mean() if loss.ndim == 0 else expected.mean((0, 2, 3, 4)))


def test_an_answer_that_has_lost_the_slices_is_refused() -> None:
    with pytest.raises(ModelError, match=r"_Answering returns shape \(2,\) for 4 slices; expected: .* first axis"):
        insert_depth_shift(_Answering(lambda y: y.mean((0, 2, 3))))(torch.zeros(1, 1, 6, 5, 4))


def test_threads_call_one_network_side_by_side() -> None:
    network = insert_depth_shift(_Answering(lambda y: y), every=1)
    _randomise(network)
    volumes = [torch.randn(1, 1, 24, 24, slices) for slices in (4, 2, 8, 3)] * 16
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with torch.inference_mode():
            expected = [network(volume) for volume in volumes]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(torch.inference_mode()(network), volumes))
    finally:
        sys.setswitchinterval(switching)
    assert all(map(torch.equal, found, expected))


class _Recomputing(_Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(lambda y: self.depthwise(self.first(y).relu()), x, use_reentrant=False))


def _gradients(network: nn.Module, answers: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(sum(answer.square().sum() for answer in answers), list(network.parameters())))


def test_layers_computed_again_remember_the_depth_of_their_call() -> None:
    torch.manual_seed(0)
    network = insert_depth_shift(_Recomputing(), alpha=1.0, every=1).double()
    _randomise(network)
    volumes = [torch.randn(1, 8, 5, 6, slices, dtype=torch.float64) for slices in (4, 2)]
    together = _gradients(network, [network(volume) for volume in volumes])
    apart = [_gradients(network, [network(volume)]) for volume in volumes]
    for both, one, other in zip(together, *apart, strict=True):
        torch.testing.assert_close(both, one + other)
    # The hooks of the very same weights, kept instead of computed again.
    kept = insert_depth_shift(_Recomputing(), alpha=1.0, every=1).double()
    kept.load_state_dict(network.state_dict())
    kept.network.forward = lambda x: kept.network.head(kept.network.depthwise(kept.network.first(x).relu()))
    for one, other in zip(apart[0], _gradients(kept, [kept(volumes[0])]), strict=True):
        torch.testing.assert_close(one, other)


def test_depths_that_cannot_be_told_apart_are_refused_when_computed_again() -> None:
    network = insert_depth_shift(_Recomputing(), alpha=1.0, every=1)
    answer = network(torch.zeros(2, 8, 5, 6, 2))
    network(torch.zeros(1, 8, 5, 6, 4))
    with pytest.raises(ModelError, match="'first' repeats 4 slices of volumes of unknown depth"):
        answer.sum().backward()


def test_where_chooses() -> None:
    network = insert_depth_shift(_seeded(_basic), where=lambda name, conv: conv.out_channels == 16 and "conv_1" in name)
    assert [site.name.split(".")[0] for site in network.sites] == ["down_2", "down_3", "down_4", "upcat_4", "upcat_3"]


def test_the_scores_are_not_shifted_by_the_rule() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3))
    assert [site.name for site in insert_depth_shift(plain, every=1).sites] == ["0"]


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (_basic, {"kind": "distil"}, "kind='distil' of a depth shift; expected: distill or residual; .*'distill'"),
        (_basic, {"alpha": 0.0}, "alpha=0.0 of a depth shift; expected: a fraction above 0 up to 1"),
        (_basic, {"alpha": 1.5}, "alpha=1.5"),
        (_basic, {"alpha": "half"}, "alpha='half'"),
        (_basic, {"kernel": 2}, "kernel=2 of a depth shift; expected: an odd number"),
        (_basic, {"every": 0}, "every=0; expected: a whole number of at least 1"),
        (_basic, {"alpha": 0.1}, "BasicUNet has no convolution .* 40 channels or more for alpha=0.1"),
        (_basic, {"where": lambda name, conv: name.startswith("final")}, "final_conv: 3 channels are too few"),
        (_basic, {"where": lambda name, conv: False}, "BasicUNet has no convolution"),
        (lambda: "a word", {}, "a depth shift in str; expected: a torch.nn.Module"),
        (lambda: nn.Conv2d, {}, "a depth shift in type; expected: a torch.nn.Module"),
        (lambda: nn.Linear(3, 3), {}, "Linear has no convolution"),
        (lambda: nn.Sequential(nn.Conv3d(1, 8, 3), nn.Conv3d(8, 8, 3)), {}, "Sequential has no convolution"),
    ],
)
def test_impossible_insertions(network: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        insert_depth_shift(network(), **options)


class _Folding(nn.Module):
    """Cuts its images in two before it convolves, so that slices are no longer the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(torch.cat(x.chunk(2, 2))))


def test_slices_that_are_lost_on_the_way_are_noticed() -> None:
    with pytest.raises(ModelError, match=r"'conv' returns maps of shape \(6, 8, 4, 8\) for 3 slices"):
        insert_depth_shift(_Folding())(torch.zeros(1, 1, 8, 8, 3))
    with pytest.raises(ModelError, match=r"input of shape \(1, 1, 16, 16\); expected: volumes"):
        insert_depth_shift(_basic())(torch.zeros(1, 1, 16, 16))
