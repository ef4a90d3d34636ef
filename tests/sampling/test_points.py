"""Places drawn from scans, the classes found there, and how their surroundings are turned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.data import LoadedCase
from farvox.geometry import Grid
from farvox.labels import IGNORE, LabelTable
from farvox.preprocessing.cases import PreprocessedCase, preprocess_case
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.sampling.points import (
    label_at_points,
    random_offset_transforms,
    sample_points,
    swap_left_right,
    to_normalised,
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> PreprocessedCase:
    """12×10×8 voxels; class 1 is one voxel, class 2 a box of 24, the rest background."""
    classes = np.zeros((12, 10, 8), np.uint8)
    classes[2, 3, 4] = 1
    classes[6:8, 5:8, 2:6] = 2
    image = np.random.default_rng(0).normal(0, 1, (1, *classes.shape))
    preprocessing = Preprocessing(
        spacing=(1, 1, 1), channels=("MR",), intensity=(IntensityNormalization(kind="zscore"),)
    )
    folder = tmp_path_factory.mktemp("prepared")
    return preprocess_case(LoadedCase("a", image, classes, Grid(classes.shape, np.eye(4))), preprocessing, 3, folder)


def test_uniform_places_fill_the_scan_between_its_outer_faces(case: PreprocessedCase) -> None:
    places = sample_points(case, 20_000, "uniform", np.random.default_rng(1))
    assert places.min(0) == pytest.approx([-0.5] * 3, abs=0.01)
    assert places.max(0) == pytest.approx(np.array(case.shape) - 0.5, abs=0.01)
    inside = label_at_points(case.classes, places, "nearest")
    assert (inside == 2).mean() == pytest.approx(24 / 960, abs=0.005)


def test_each_class_is_drawn_alike_however_small(case: PreprocessedCase) -> None:
    places = sample_points(case, 6_000, "class-balanced", np.random.default_rng(1))
    shares = np.bincount(label_at_points(case.classes, places, "nearest"), minlength=3) / len(places)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    assert len(np.unique(places, axis=0)) == len(places)


def test_mixed_places_are_half_of_either(case: PreprocessedCase) -> None:
    for count in (1, 2, 7, 600):
        places = sample_points(case, count, "mixed", np.random.default_rng(2))
        assert places.shape == (count, 3)
    rare = (label_at_points(case.classes, places, "nearest") == 1).mean()
    assert rare == pytest.approx(1 / 6, abs=0.05)


def test_the_class_of_a_voxel_centre_is_that_voxels(case: PreprocessedCase) -> None:
    voxels = np.stack(np.unravel_index(np.arange(case.classes.size), case.classes.shape), -1)
    for rule in ("linear", "nearest"):
        assert (label_at_points(case.classes, voxels.astype(float), rule) == case.classes.ravel()).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 4)] * 3))
def test_linear_is_the_class_of_most_weight(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, shape).astype(np.uint8)
    places = rng.uniform(-0.5, np.array(shape) - 0.5, (6, 3))
    for place, found in zip(places, label_at_points(classes, places, "linear"), strict=True):
        near = np.clip(place, 0, np.array(shape) - 1)
        axes = [np.clip(1 - np.abs(np.arange(n) - x), 0, 1) for x, n in zip(near, shape, strict=True)]
        weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
        shares = [weight[classes == value].sum() for value in range(4)]
        assert shares[found] == pytest.approx(max(shares))


def test_between_two_voxels_the_nearer_decides_and_ignored_ones_stay_ignored() -> None:
    classes = np.array([1, 2, IGNORE], np.uint8)[:, None, None]
    places = np.array([[0.4, 0, 0], [0.6, 0, 0], [1.7, 0, 0]])
    assert label_at_points(classes, places, "linear").tolist() == [1, 2, IGNORE]
    assert label_at_points(classes, places, "nearest").tolist() == [1, 2, IGNORE]


def test_outer_faces_are_one() -> None:
    shape = (12, 10, 8)
    ends = np.array([[-0.5, -0.5, -0.5], [11.5, 9.5, 7.5], [5.5, 4.5, 3.5]])
    assert to_normalised(ends, shape).tolist() == [[-1, -1, -1], [1, 1, 1], [0, 0, 0]]


def test_matrices_turn_millimetres_not_proportions() -> None:
    extent = np.array([100.0, 50.0, 20.0])
    matrices, mirrored = random_offset_transforms(5_000, 0.2, (), extent, np.random.default_rng(0))
    assert not mirrored.any()
    in_mm = matrices * (extent / 2)[:, None] / (extent / 2)
    spread = (in_mm - np.eye(3)).std(0)
    # Normal draws drawn back to two standard deviations spread by 0.96.
    assert spread == pytest.approx(np.full((3, 3), 0.2 * 0.96), rel=0.05)
    assert in_mm.mean(0) == pytest.approx(np.eye(3), abs=0.02)


def test_mirroring_left_to_right_exchanges_sides() -> None:
    axes = ("left-right", "inferior-superior")
    matrices, mirrored = random_offset_transforms(1_000, 0.0, axes, np.ones(3), np.random.default_rng(0))
    signs = np.diagonal(matrices, axis1=1, axis2=2)
    assert set(map(tuple, signs)) == {(1, 1, 1), (-1, 1, 1), (1, 1, -1), (-1, 1, -1)}
    assert (mirrored == (signs[:, 0] == -1)).all()
    table = LabelTable((0, 1, 2, 3), ("background", "left kidney", "right kidney", "liver"))
    classes = np.tile(np.array([0, 1, 2, 3, IGNORE], np.uint8), 200)
    found = swap_left_right(classes, mirrored, table)
    swapped = np.tile(np.array([0, 2, 1, 3, IGNORE], np.uint8), 200)
    assert (found == np.where(mirrored == 1, swapped, classes)).all()
