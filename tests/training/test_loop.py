"""The loop does what the recipe says: rate, weights, clipping, augmentation, order, validation. Each by its effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from farvox.labels import IGNORE, LabelTable
from farvox.losses import class_weights, cross_entropy
from farvox.preprocessing.cases import PreprocessedCase
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import Recipe, load_recipe
from farvox.runs.schema import StartEvent
from farvox.sampling.patches import choose_centre
from farvox.training.fold import setup_fabric
from farvox.training.loop import Extras, Training
from farvox.training.schedule import learning_rate

SPACE = Preprocessing(spacing=(1, 1, 1), channels=("MR",), intensity=(IntensityNormalization(kind="zscore"),))
LABELS = LabelTable((0, 1), ("background", "box"))
PLAIN = {
    **dict.fromkeys(
        ("augment.affine", "augment.contrast", "augment.brightness", "augment.gamma", "augment.noise"), 0.0
    ),
    "augment.flip": (),
    "patch.size": (8, 8, 8),
    "patch.sampling": "uniform",
    "train.batch": 2,
    "train.epochs": 1,
    "train.warmup": 0.0,
    "train.precision": "float32",
    "train.weight_decay": 0.0,
    "train.checkpoint_seconds": 1e9,
}


def case(name: str, value: float | None = None, classes: np.ndarray | None = None) -> PreprocessedCase:
    """A case of 16³ voxels in memory: noise or one value, a box of class 1 in an eighth of it."""
    if classes is None:
        classes = np.zeros((16, 16, 16), np.uint8)
        classes[:8, :8, :8] = 1
    image = np.random.default_rng(len(name)).normal(size=(1, 16, 16, 16)).astype(np.float32)
    if value is not None:
        image = np.full_like(image, value)
    voxels = tuple(np.argwhere(classes == index) for index in range(2))
    return PreprocessedCase(name, image, classes, voxels, np.array([len(part) for part in voxels]))


def training(
    folder: Path,
    settings: dict[str, Any],
    cases: list[PreprocessedCase] | None = None,
    validation: list[PreprocessedCase] | None = None,
    **extras: Any,
) -> Training:
    recipe: Recipe = load_recipe("default", {**PLAIN, **settings})
    return Training(
        recipe,
        SPACE,
        LABELS,
        cases or [case("a"), case("bb")],
        validation or [],
        folder,
        setup_fabric(recipe, "cpu"),
        "float32",
        on_progress=lambda state: None,
        stop=lambda: False,
        extras=Extras(**extras),
    )


START = StartEvent(fold="0", model="test", parameters=1, device="cpu", precision="float32", threads=1)


def network() -> nn.Module:
    """One weight and one bias a class, not equal, so that losses depend on class weights."""
    module = nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.3, -0.2]).reshape(2, 1, 1, 1, 1))
        module.bias.copy_(torch.tensor([0.5, -0.5]))
    return module


class Steps:
    """Keeps what each step reports."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self.losses: list[float] = []
        self.seen: list[Any] = []
        self.look = look

    def on_step(self, state: Any) -> None:
        self.losses.append(state.loss)
        self.seen.append(self.look())


@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_uses_class_weights_when_the_recipe_says_so(tmp_path: Path, weighted: bool) -> None:
    steps = Steps()
    settings = {"loss.terms": ("cross_entropy",), "loss.class_weights": weighted}
    loop = training(tmp_path, settings, callbacks=(steps,))
    batch = loop._sampler(None).batch(0, np.random.default_rng(loop._key(0)))
    weights = class_weights(torch.tensor([2 * 7 * 512, 2 * 512])) if weighted else None
    with torch.no_grad():
        expected = float(cross_entropy(network()(batch.image), batch.target, weights))
    loop.fit(network(), START)
    assert steps.losses[0] == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate_of_every_step_is_that_of_the_schedule(tmp_path: Path) -> None:
    """Under a constant gradient Adam moves every weight by the learning rate."""
    module = network()
    steps = Steps(lambda: float(module.bias[0]))
    settings = {
        "train.epochs": 12,
        "train.learning_rate": 0.01,
        "train.schedule": "cosine",
        "train.gradient_clip_norm": 0.0,
    }
    loop = training(tmp_path, settings, loss=lambda logits, _target: logits[:, 0].mean(), callbacks=(steps,))
    loop.fit(module, START)
    moves = -np.diff([0.5, *steps.seen])
    expected = [learning_rate(0.01, step / len(moves), "cosine", 0.0) for step in range(len(moves))]
    np.testing.assert_allclose(moves, expected, rtol=1e-3, atol=1e-6)
    assert expected[0] == 0.01
    assert expected[-1] < 0.001


def test_gradients_are_clipped_to_the_norm_of_the_recipe(tmp_path: Path) -> None:
    for limit, expected in ((0.001, 0.001), (0.0, 100.0)):
        module = network()
        steps = Steps(lambda module=module: float(module.bias.grad[0]))
        settings = {"train.gradient_clip_norm": limit, "train.batch": 1}
        loop = training(
            tmp_path / str(limit), settings, loss=lambda logits, _target: 100 * logits[:, 0].mean(), callbacks=(steps,)
        )
        (tmp_path / str(limit)).mkdir()
        module.weight.requires_grad_(False)
        loop.fit(module, START)
        assert steps.seen[0] == pytest.approx(expected, rel=1e-3)


def test_validation_leaves_out_voxels_that_are_not_annotated(tmp_path: Path) -> None:
    """A network that is right wherever a label is known, and wrong elsewhere, has Dice 1."""
    classes = np.zeros((16, 16, 16), np.uint8)
    classes[:8, :8, :8] = 1
    image = np.where(classes == 1, 1.0, -1.0)
    image[:, :, 12:] = 1.0
    classes[:, :, 12:] = IGNORE
    labelled = case("v", classes=classes)
    labelled = PreprocessedCase("v", image[None].astype(np.float32), classes, labelled.voxels_by_class, labelled.counts)
    module = nn.Conv3d(1, 2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([-5.0, 5.0]).reshape(2, 1, 1, 1, 1))
    assert training(tmp_path, {}, validation=[labelled])._validate(module) == {1: 1.0}


def test_validation_takes_at_most_a_twentieth_of_a_time_budget(tmp_path: Path) -> None:
    """Ten validations would be made in each run; slow ones are left out."""

    def count(seconds: float, folder: Path) -> int:
        folder.mkdir()
        loop = training(folder, {"train.epochs": 0, "train.budget": "1s"}, validation=[case("v")])
        calls: list[float] = []

        def slow(_network: nn.Module) -> dict[str, float]:
            calls.append(time.monotonic())
            time.sleep(seconds)
            return {}

        loop._validate = slow  # type: ignore[method-assign]
        loop.fit(network(), START)
        return len(calls)

    # 0.06 s are more than a twentieth of a second, so that no other follows the first; ten would fit into the budget.
    assert count(0.06, tmp_path / "slow") == 1
    assert count(0.0, tmp_path / "fast") >= 3


def test_an_epoch_has_at_least_one_step(tmp_path: Path) -> None:
    for count, steps in ((1, 1), (2, 1), (3, 2), (6, 3)):
        sampler = training(tmp_path, {}, [case(f"c{number}") for number in range(count)])._sampler(None)
        assert sampler.steps_per_epoch == steps


def test_every_case_is_used_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    cases = [case(f"c{number}", value=float(number)) for number in range(6)]
    sampler = training(tmp_path, {"train.batch": 1}, cases)._sampler(None)
    orders = []
    for epoch in range(4):
        rng = np.random.default_rng(0)
        orders.append([round(float(sampler.batch(6 * epoch + step, rng).image.mean())) for step in range(6)])
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("part", ["contrast", "brightness", "gamma", "noise"])
def test_intensities_are_changed_as_the_recipe_says(tmp_path: Path, part: str) -> None:
    changed, plain = (
        training(tmp_path, {f"augment.{part}": strength})._sampler(None).batch(0, np.random.default_rng(1)).image
        for strength in (0.2, 0.0)
    )
    # Up to the first draw both batches are the same patches.
    first, expected = changed[0], plain[0]
    difference = first - expected
    assert float(difference.abs().max()) > 1e-3
    if part == "brightness":
        assert float(difference.std()) < 1e-6
    elif part == "contrast":
        torch.testing.assert_close(first / expected, (first / expected).mean().expand_as(first), rtol=1e-3, atol=1e-3)
    elif part == "gamma":
        assert (float(first.min()), float(first.max())) == pytest.approx(
            (float(expected.min()), float(expected.max())), abs=1e-5
        )
    else:
        assert float(difference.mean().abs()) < 0.05


def test_own_augmentation_gets_every_patch_and_its_result_is_used(tmp_path: Path) -> None:
    def double(image: torch.Tensor, classes: torch.Tensor, rng: np.random.Generator) -> tuple:
        return 2 * image, classes

    plain, doubled = (
        training(tmp_path, {}, augment=own)._sampler(None).batch(0, np.random.default_rng(1)).image
        for own in (None, double)
    )
    torch.testing.assert_close(doubled, 2 * plain)


def test_centres_are_scattered_about_the_voxel_of_a_class(tmp_path: Path) -> None:
    classes = np.zeros((64, 64, 64), np.uint8)
    classes[32, 32, 32] = 1
    voxels = (np.array([[32, 32, 32]]), np.array([[32, 32, 32]]))
    one = PreprocessedCase("a", np.zeros((1, 64, 64, 64), np.float32), classes, voxels, np.array([64**3 - 1, 1]))
    rng = np.random.default_rng(0)
    centres = np.array([choose_centre(one, (16, 16, 16), "class-balanced", rng) for _ in range(300)]) - 32
    assert np.abs(centres).max() <= 4
    assert np.abs(centres).max() > 3.5
    np.testing.assert_allclose(centres.std(0), 8 / 12**0.5, rtol=0.1)


def test_events_reach_callbacks_and_log_alike(tmp_path: Path) -> None:
    events: list[str] = []

    class Listener:
        def on_start(self, event: Any) -> None:
            events.append(event.event)

        on_epoch = on_validation = on_end = on_start

    training(tmp_path, {"train.epochs": 2}, validation=[case("v")], callbacks=(Listener(),)).fit(network(), START)
    import json

    logged = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert events == logged
    assert logged[0] == "start"
    assert logged[-1] == "end"
    assert logged.count("epoch") == 2


def test_every_step_is_reported_with_its_epoch_and_fraction(tmp_path: Path) -> None:
    loop = training(tmp_path, {"train.epochs": 3, "train.batch": 1})
    states: list[Any] = []
    loop.on_progress = states.append
    loop.fit(network(), START)
    assert [state.step for state in states] == [1, 2, 3, 4, 5, 6]
    assert [state.epoch for state in states] == [0, 1, 1, 2, 2, 3]
    np.testing.assert_allclose([state.fraction_done for state in states], np.arange(1, 7) / 6)


def test_learned_offsets_are_recorded_twenty_times_and_at_both_ends(tmp_path: Path) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets = nn.Parameter(torch.zeros(4, 3))
            self.layer = network()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(image) + self.offsets.sum()
            return logits

    training(tmp_path, {"train.epochs": 40, "train.batch": 1}).fit(Sparse(), START)
    with np.load(tmp_path / "offsets.npz") as stored:
        assert stored["step"].tolist() == list(range(0, 81, 4))
