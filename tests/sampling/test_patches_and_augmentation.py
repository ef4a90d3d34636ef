"""Patches lie where they should, classes get their turn, and augmentation keeps image and label together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from farvox.data import LoadedCase
from farvox.geometry import Grid
from farvox.labels import IGNORE, LabelTable
from farvox.preprocessing.cases import PreprocessedCase, class_counts, open_preprocessed, preprocess_case
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.preprocessing.preprocess import zscore_normalise
from farvox.sampling.augment import augment_intensities, flip, random_matrices
from farvox.sampling.patches import choose_centre, sample_patch_from

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreprocessedCase:
    """A case whose image equals its class index (0, 1, 2), with one small and one large structure."""
    classes = np.zeros((24, 20, 16), np.uint8)
    classes[2:18, 2:14, 2:12], classes[20:22, 16:18, 13:15] = 1, 2
    step = IntensityNormalization(kind="dataset", low=0, high=2)
    preprocessing = Preprocessing(spacing=(1, 1, 1), channels=("MR",), intensity=(step,))
    case = LoadedCase("a", classes[None].astype(np.float32), classes, Grid(classes.shape, np.eye(4)))
    return preprocess_case(case, preprocessing, 3, tmp_path_factory.mktemp("prepared"))


def test_what_was_prepared_opens_again(prepared: PreprocessedCase) -> None:
    folder = Path(prepared.image.filename).parent
    again = open_preprocessed(folder, "a")
    np.testing.assert_array_equal(again.classes, prepared.classes)
    np.testing.assert_array_equal(again.image[0], prepared.classes)
    np.testing.assert_array_equal(class_counts([again, prepared]), 2 * np.bincount(prepared.classes.ravel()))
    for index, places in enumerate(again.voxels_by_class):
        assert (again.classes[tuple(places.T)] == index).all()


def test_an_unturned_patch_is_a_crop_and_outside_is_ignored(prepared: PreprocessedCase) -> None:
    image, label = sample_patch_from(prepared, np.array([1.5, 9.5, 7.5]), np.eye(3), (8, 20, 16), CPU)
    np.testing.assert_array_equal(label[2:], prepared.classes[:6])
    np.testing.assert_allclose(image[0, 2:], prepared.classes[:6], atol=1e-5)
    assert (label[:2] == IGNORE).all()
    assert (image[:, :2] == 0).all()


def test_each_channel_of_a_patch_comes_to_zero_mean_and_unit_spread() -> None:
    patches = torch.tensor([[1.0, 3.0, 1.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-8.0, 0.0, 0.0, 0.0]]).reshape(1, 3, 2, 2, 1)
    found = zscore_normalise(patches).flatten(2)[0]
    root = 12**0.5  # of the variance (6² + 3 · 2²) / 4
    wanted = [[-1, 1, -1, 1], [0, 0, 0, 0], [-6 / root, 2 / root, 2 / root, 2 / root]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_image_and_label_turn_together(prepared: PreprocessedCase) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        matrix = random_matrices(1, 0.15, (1, 1, 1), rng)[0]
        image, label = sample_patch_from(prepared, np.array([10.0, 8.0, 7.0]), matrix, (16, 12, 10), CPU)
        known = label != IGNORE
        assert (torch.abs(image[0] - label)[known] <= 1.01).all()
        assert float(torch.abs(image[0].round() - label)[known].mean()) < 0.05


def test_each_class_is_as_often_at_the_centre(prepared: PreprocessedCase) -> None:
    rng = np.random.default_rng(1)
    hits = np.zeros(3)
    for _ in range(600):
        _, label = sample_patch_from(
            prepared, choose_centre(prepared, (4, 4, 4), "class-balanced", rng), np.eye(3), (4, 4, 4), CPU
        )
        hits += [bool((label == c).any()) for c in range(3)]
    assert hits[2] / 600 > 0.25  # it fills 0.1 % of the scan
    uniform = sum(
        bool(
            (
                sample_patch_from(
                    prepared, choose_centre(prepared, (4, 4, 4), "uniform", rng), np.eye(3), (4, 4, 4), CPU
                )[1]
                == 2
            ).any()
        )
        for _ in range(600)
    )
    assert uniform / 600 < 0.05


def test_patches_stay_inside_where_they_fit_and_are_centred_where_not(prepared: PreprocessedCase) -> None:
    rng = np.random.default_rng(2)
    for rule in ("class-balanced", "uniform"):
        for _ in range(50):
            low = choose_centre(prepared, (8, 8, 32), rule, rng) - (np.array([8, 8, 32]) - 1) / 2
            assert (low[:2] >= -1e-9).all()
            assert (low[:2] + 8 <= np.array([24, 20]) + 1e-9).all()
            assert low[2] == pytest.approx(-8)


def test_mirroring_swaps_left_and_right_names() -> None:
    table = LabelTable.from_mapping({1: "left kidney", 2: "right kidney", 3: "liver"})
    classes = torch.tensor([1, 2, 3, IGNORE], dtype=torch.uint8).reshape(4, 1, 1)
    image = torch.arange(4.0).reshape(1, 4, 1, 1)
    seen = set()
    for seed in range(20):
        found, label = flip(image, classes, ("left-right",), table, np.random.default_rng(seed))
        seen.add((tuple(found.ravel().tolist()), tuple(label.ravel().tolist())))
    assert seen == {((0, 1, 2, 3), (1, 2, 3, IGNORE)), ((3, 2, 1, 0), (IGNORE, 3, 1, 2))}


def test_intensity_change_switched_off_changes_nothing_and_on_is_repeatable() -> None:
    image = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    torch.testing.assert_close(augment_intensities(image, 0, 0, 0, 0, rng), image)
    first, second = (augment_intensities(image, 0.2, 0.2, 0.2, 0.1, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, image)


def test_the_affine_change_has_the_spread_it_is_given() -> None:
    rng = np.random.default_rng(0)
    draws = random_matrices(2000, 0.1, (1, 1, 1), rng) - np.eye(3)
    assert draws.std() == pytest.approx(0.1 * 0.955, rel=0.05)  # normal draws clipped at two standard deviations
    assert np.abs(draws).max() <= 0.2 + 1e-12


def test_gamma_is_drawn_with_the_standard_deviation_of_the_recipe() -> None:
    """The logarithm of the exponent is normal with the given standard deviation."""
    rng = np.random.default_rng(0)
    image = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1)
    logs = []
    for _ in range(400):
        changed = augment_intensities(image, contrast=0, brightness=0, gamma=0.2, noise=0, rng=rng)
        logs.append(np.log(np.log(float(changed[0, 1])) / np.log(0.25)))
    assert np.std(logs) == pytest.approx(0.2, rel=0.12)
    assert np.mean(logs) == pytest.approx(0, abs=0.04)
