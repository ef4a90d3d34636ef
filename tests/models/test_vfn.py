"""The volumetric fusion net: what each view sees, its two stages, and the vote it starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from farvox import create_model
from farvox.errors import ModelError
from farvox.losses import Loss
from farvox.models import count_parameters


def _network(seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("vfn", classes=3, **{"widths": [4, 6], **options})


def _moved(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Parts, "views" or of the fusion, of which any number has changed."""
    return {key.split(".")[0] for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


def test_fusion_counts_by_hand() -> None:
    with torch.device("meta"):
        network = create_model("vfn", in_channels=2, classes=3)
        views = 3 * count_parameters(create_model("unet2d", in_channels=2, classes=3))
    seen = 2 + 3 * 3
    convolution = lambda a, b, side: side**3 * a * b + b + 2 * b  # noqa: E731 - with bias, and a norm's scale and shift
    down = sum(convolution(a, b, 3) + 2 * convolution(b, b, 3) for a, b in ((seen, 16), (16, 32), (32, 64)))
    up = sum(convolution(a, b, 4) + convolution(b, b, 3) for a, b in ((64, 32), (32, 16), (16, seen)))
    assert count_parameters(network) - views == down + convolution(64, 64, 3) + up + seen * 3 + 3


def test_each_view_sees_one_slice_across_its_axis() -> None:
    network = _network().train()
    network.set_training_progress(0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # statistics of a batch reach across slices
    image = torch.randn(1, 1, 16, 17, 18)
    touched = image.clone()
    touched[0, 0, 5, 9, 11] += 5
    with torch.no_grad():
        for axis, (one, other) in enumerate(zip(network(image), network(touched), strict=True)):
            changed = (one != other).any(1)[0].nonzero()
            assert changed[:, axis].unique().tolist() == [(5, 9, 11)[axis]]
            assert len(changed) > 100


def test_first_stage_gives_what_2d_networks_alone_give() -> None:
    network = _network()
    alone = create_model("unet2d", classes=3)
    alone.load_state_dict(network.views[1].state_dict())
    network.train().set_training_progress(0.2)
    image = torch.randn(2, 1, 16, 12, 20)
    expected = alone.train()(image.transpose(3, 4)).transpose(3, 4)
    torch.testing.assert_close(network(image)[1], expected)


@pytest.mark.parametrize(
    ("done", "learns"), [(0.0, {"views"}), (0.39, {"views"}), (0.4, {"fusion"}), (1.0, {"fusion"})]
)
def test_each_stage_moves_its_own_weights_alone(done: float, learns: set[str]) -> None:
    network = _network(views_share=0.4).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    loss = Loss(["dice", "cross_entropy"])
    # Momentum and decay of the first stage must not go on in the second.
    steps = (0.0, 0.0, done, done) if done >= 0.4 else (done, done)
    for at in steps:
        if at == done:
            before = {key: value.clone() for key, value in network.state_dict().items()}
        network.set_training_progress(at)
        found = network(torch.randn(1, 1, 16, 16, 8))
        answers = found if isinstance(found, tuple) else (found,)
        value = torch.stack([loss(answer, torch.randint(0, 3, (1, 16, 16, 8))) for answer in answers]).mean()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        network.eval()  # a validation in between
        network(torch.randn(1, 1, 8, 8, 8))
        network.train()
    fusion = {"down", "bottom", "up", "head"}
    assert _moved(network, before) == (fusion if learns == {"fusion"} else learns)


def test_starts_nearly_as_the_vote_of_the_views() -> None:
    network = _network().eval()
    with torch.no_grad():
        for view, scale in zip(network.views, (10.0, 6.0, 8.0), strict=True):
            view.head.weight.mul_(scale)
        image = torch.randn(1, 1, 24, 20, 16)
        votes = sum(
            view(image.movedim(axis, -1)).movedim(-1, axis).softmax(1) for axis, view in enumerate(network.views, 2)
        )
        found = network(image)
    top = votes.topk(2, 1).values
    clear = (top[:, 0] - top[:, 1]) > 0.2
    assert clear.float().mean() > 0.5
    assert torch.equal(found.argmax(1)[clear], votes.argmax(1)[clear])
    torch.testing.assert_close(found, 2 * votes, rtol=0, atol=0.5)


def test_fusion_is_sums_across_and_transposed_convolutions_up() -> None:
    network = _network().eval()
    image = torch.randn(1, 1, 8, 12, 16)
    with torch.no_grad():
        seen = torch.cat(
            [image] + [view(image.movedim(a, -1)).movedim(-1, a).softmax(1) for a, view in enumerate(network.views, 2)],
            1,
        )
        half = F.max_pool3d(network.down[0](seen), 2)
        quarter = F.max_pool3d(network.down[1](half), 2)
        expected = network.head(network.up[0](network.up[1](network.bottom(quarter)) + half) + seen)
        assert quarter.shape == (1, 6, 2, 3, 4)
        torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"widths=\[\] for 'vfn'; expected: one positive whole number a stage"),
        ({"widths": [8, 0]}, "widths="),
        ({"views_share": 1.5}, "views_share=1.5 for 'vfn'; expected: 0 to 1"),
        ({"views_share": "half"}, "views_share='half'"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("vfn", **options)
