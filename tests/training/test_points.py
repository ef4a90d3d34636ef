"""Training at points: what a step learns from, that turning offsets is turning the scan, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from farvox.data import LoadedCase
from farvox.errors import RecipeError
from farvox.geometry import Grid
from farvox.labels import LabelTable
from farvox.models import PointNetwork, create_model
from farvox.preprocessing.cases import PreprocessedCase, preprocess_case
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.preprocessing.planning import validate_recipe
from farvox.recipes import list_recipes, load_recipe
from farvox.sampling.samplers import PointSampler, Rank
from farvox.training.offsets import OffsetLog, mean_field_of_view_mm
from tests.training.runs import farvox, make_dataset

PREPARATION = Preprocessing(spacing=(1, 1, 2), channels=("MR",), intensity=(IntensityNormalization(kind="zscore"),))
LABELS = LabelTable((0, 1, 2), ("background", "left", "right"))
PLACE = Rank(0, 1, torch.device("cpu"))


@pytest.fixture
def cases(tmp_path: Path) -> list[PreprocessedCase]:
    """Five scans of different sizes."""
    found = []
    for number in range(5):
        rng = np.random.default_rng(number)
        shape = (10 + number, 9, 8)
        classes = rng.integers(0, 3, shape).astype(np.uint8)
        case = LoadedCase(str(number), rng.normal(0, 1, (1, *shape)), classes, Grid(shape, np.diag([1, 1, 2, 1])))
        found.append(preprocess_case(case, PREPARATION, 3, tmp_path))
    return found


def _feed(cases: list[PreprocessedCase], folder: Path, *settings: str) -> tuple[PointSampler, torch.nn.Module]:
    recipe = load_recipe("obelisk-midl2018-augmented", ["points.count=50", "model.options.offsets=16", *settings])
    network = create_model("obelisk-dense", 1, 3, **recipe.model.options)
    assert isinstance(network, PointNetwork)
    return PointSampler(recipe, PREPARATION, LABELS, cases, PLACE, network, folder / "store"), network


def test_a_step_takes_points_of_several_scans_and_is_the_same_for_the_same_draw(
    cases: list[PreprocessedCase], tmp_path: Path
) -> None:
    feed, network = _feed(cases, tmp_path, "points.cases_per_step=3")
    batch = feed.batch(7, np.random.default_rng(1))
    assert [p.shape[1] for p in batch.points] == [16, 17, 17]
    assert batch.target.shape == (1, 50)
    assert feed.forward(network, batch)[0].shape == (1, 3, 50)
    again = feed.batch(7, np.random.default_rng(1))
    assert torch.equal(again.target, batch.target)
    assert all(torch.equal(a, b) for a, b in zip(again.points, batch.points, strict=True))
    assert feed.steps_per_epoch == 64


def test_points_are_answered_in_the_scan_they_were_drawn_from(cases: list[PreprocessedCase], tmp_path: Path) -> None:
    feed, network = _feed(cases, tmp_path, "augment.affine=0.0")
    network.eval()
    batch = feed.batch(0, np.random.default_rng(1))
    assert batch.matrices is None
    with torch.no_grad():
        together = feed.forward(network, batch)[0]
        alone = [
            network.forward_points(image, points) for image, points in zip(batch.images, batch.points, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone, 2), rtol=1e-5, atol=1e-5)
    for image, case in zip(sorted(batch.images, key=lambda i: i.shape[2]), cases, strict=True):
        smooth = network.prepare(torch.from_numpy(np.array(case.image))[None])
        torch.testing.assert_close(image, smooth)


def test_turning_the_offsets_is_turning_the_scan() -> None:
    """A smooth scan resampled around a point, asked with plain offsets, and the scan itself with turned ones."""
    size = 41
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"), -1)
    scan = np.sum([np.sin(places @ (3 * rng.normal(0, 1, 3))) for _ in range(4)], axis=0)
    matrix = np.eye(3) + 0.2 * rng.normal(0, 1, (3, 3))
    middle = np.full(3, (size - 1) / 2)
    turned = affine_transform(scan, matrix, offset=middle - matrix @ middle, order=3)
    network = create_model("obelisk-dense", 1, 3, offsets=32, smoothing=[]).eval()
    images = [torch.from_numpy(s.astype(np.float32))[None, None] for s in (turned, scan)]
    point = torch.zeros(1, 1, 3)
    with torch.no_grad():
        wanted = network.forward_points_batch([images[0]], [point])
        found = network.forward_points_batch(
            [images[1]], [point], [torch.from_numpy(matrix.astype(np.float32))[None, None]]
        )
        plain = network.forward_points_batch([images[1]], [point])
    assert (found - wanted).abs().max() < 0.05 * (plain - wanted).abs().max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.name=unet3d", "model.options={}"], "'unet3d', which is not a point network; expected: obelisk-dense"),
        (["augment.gamma=0.1"], "augment.gamma = 0.1 with points"),
        (["patch.normalize=true"], "patch.normalize with points"),
        (["points.count=1"], "batch norm needs several"),
    ],
)
def test_settings_that_contradict_each_other(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate_recipe(load_recipe("obelisk-dense", settings))


def test_every_recipe_fits_itself() -> None:
    for name in list_recipes():
        validate_recipe(load_recipe(name))


def test_the_rows_of_table_1() -> None:
    rows = {
        "dense-192": ("obelisk-dense", 192, "cross_entropy", 0.25, 0.0),
        "dense-384": ("obelisk-dense", 384, "topk_cross_entropy", 0.5, 0.0),
        "mlp-384": ("obelisk-mlp", 384, "topk_cross_entropy", 0.5, 0.0),
        "unary-384": ("obelisk-unary", 384, "topk_cross_entropy", 0.5, 0.0),
        "random-384": ("obelisk-random", 384, "topk_cross_entropy", 0.5, 0.0),
        "dense-768": ("obelisk-dense", 768, "topk_cross_entropy", 0.25, 0.0),
        "augmented": ("obelisk-dense", 768, "topk_cross_entropy", 0.25, 0.2),
    }
    for row, wanted in rows.items():
        recipe = load_recipe(f"obelisk-midl2018-{row}")
        loss = (*recipe.loss.terms, recipe.loss.keep_fraction)
        assert (recipe.model.name, recipe.points.count, *loss, recipe.augment.affine) == wanted
        train = recipe.train
        assert (train.learning_rate, train.optimiser, train.epochs, recipe.points.steps_per_epoch) == (
            0.002,
            "adam",
            50,
            64,
        )


def test_offsets_are_followed_and_cut_back_to_the_step_that_goes_on(tmp_path: Path) -> None:
    network = create_model("obelisk-hybrid", 1, 3)
    extent = mean_field_of_view_mm([(10, 10, 10), (20, 10, 10)], (1.0, 2.0, 3.0))
    assert extent.tolist() == [15, 20, 30]
    track = OffsetLog(tmp_path, network, extent, 0)
    first = network.near.offsets.detach().clone()
    for step in (0, 5, 5, 10):
        track.note(step, step * 6.0)
        with torch.no_grad():
            network.near.offsets += 1
    with np.load(tmp_path / "offsets.npz") as found:
        assert set(found.files) == {"step", "minutes", "field_of_view_mm", "offsets/near", "offsets/far"}
        assert found["step"].tolist() == [0, 5, 10]
        assert found["minutes"].tolist() == [0, 0.5, 1]
        assert np.allclose(found["offsets/near"][:, 0], first[0].numpy() + np.array([[0], [1], [3]]), atol=1e-5)
    OffsetLog(tmp_path, network, extent, 7).note(8, 48.0)
    with np.load(tmp_path / "offsets.npz") as found:
        assert found["step"].tolist() == [0, 5, 8]
        assert found["offsets/far"].shape == (3, 512, 3)
    OffsetLog(tmp_path, create_model("obelisk-random", 1, 2, offsets=8), extent, 0).note(0, 0.0)
    assert not (tmp_path / "offsets.npz").exists()


@pytest.mark.long
def test_a_run_at_points_learns_and_is_repeatable(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "boxes")
    more = ["--recipe", "obelisk-dense", "--folds", "4", "--fold", "0", "--epochs", "3"]
    more += ["--set", "model.options={smoothing=[3], offsets=64, stride=1}", "--set", "points.count=384"]
    whole = farvox("train", dataset, "--out", tmp_path / "a", *more)
    assert whole.returncode == 0, whole.stderr
    summary = json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))
    assert summary["summary"]["foreground"]["dice"]["mean"] > 0.7
    with np.load(tmp_path / "a" / "fold-0" / "offsets.npz") as track:
        moved = np.abs(track["offsets/obelisk"][-1] - track["offsets/obelisk"][0])
        assert track["step"][[0, -1]].tolist() == [0, 192]
        assert moved.max() > 0.01
    assert not (tmp_path / "a" / "fold-0" / "prepared").exists()
    again = farvox("train", dataset, "--out", tmp_path / "b", *more)
    assert again.returncode == 0, again.stderr
    weights = [(tmp_path / run / "fold-0" / "bundle" / "weights.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]


def test_a_dense_network_cannot_learn_at_points(tmp_path: Path) -> None:
    done = farvox("train", tmp_path, "--recipe", "default", "--set", "points.count=100", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "'unet3d', which is not a point network" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
