"""The plan: spacing, intensities, strides and patch follow the training scans."""

from __future__ import annotations

import numpy as np
import pytest

from farvox.data import LoadedCase
from farvox.geometry import Grid
from farvox.preprocessing.planning import Fingerprint, fingerprint, resolve
from farvox.recipes import load_recipe


def prints(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], low_percentile: float = 0.0
) -> list[Fingerprint]:
    foreground_values = np.random.default_rng(0).normal(80, 20, (1, 5000))
    extent = np.array(shape) * spacing
    return [
        Fingerprint(extent * f, np.array(spacing), np.array([low_percentile]), foreground_values)
        for f in (0.9, 1.0, 1.2)
    ]


def test_scans_of_modest_size_keep_their_spacing_and_fit_one_patch() -> None:
    recipe, preprocessing = resolve(load_recipe("default"), prints((35, 50, 36), (1, 1, 1)), ("MRI",))
    assert preprocessing.spacing == (1, 1, 1)
    assert recipe.patch.size == (40, 56, 40)
    assert recipe.model.options["strides"] == ((2, 2, 2),) * 3
    assert preprocessing.intensity[0].kind == "percentile"


def test_spacing_is_kept_up_to_a_quarter_more_voxels_than_the_limit() -> None:
    recipe = load_recipe("default", {"grid.max_voxels": 100_000})
    for side, kept in ((49.9, True), (50.1, False)):
        _, preprocessing = resolve(recipe, prints((round(side * 10), 10, 25), (1, 1, 1))[1:2], ("MRI",))
        assert (preprocessing.spacing == (1, 1, 1)) == kept, side


def test_thick_slices_are_neither_coarsened_nor_pooled_before_the_plane() -> None:
    recipe, preprocessing = resolve(load_recipe("default"), prints((256, 256, 36), (1.25, 1.25, 7.7)), ("MRI",))
    i, j, k = preprocessing.spacing
    assert i == j > 2
    assert k == 7.7
    assert 320 / i * 320 / j * 36 <= recipe.grid.max_voxels * 1.001
    assert recipe.model.options["strides"][0] == (2, 2, 1)
    assert recipe.model.options["kernels"][0] == (3, 3, 1)
    assert recipe.model.options["strides"][-1] == (2, 2, 2)
    assert np.prod(recipe.patch.size) <= recipe.patch.max_voxels
    assert all(n % m == 0 for n, m in zip(recipe.patch.size, (8, 8, 4), strict=True))


def test_coarsening_makes_large_scans_isotropic() -> None:
    _, preprocessing = resolve(load_recipe("default"), prints((512, 512, 400), (0.8, 0.8, 1.0)), ("CT",))
    assert len(set(preprocessing.spacing)) == 1
    assert preprocessing.spacing[0] > 4


@pytest.mark.parametrize(
    ("channel", "low_percentile", "kind"),
    [
        ("CT", 0, "dataset"),
        ("abdomen_ct", 0, "dataset"),
        ("MRI", -1000, "percentile"),
        ("image", -1000, "dataset"),
        ("image", 0, "percentile"),
    ],
)
def test_hounsfield_units_are_recognised(channel: str, low_percentile: float, kind: str) -> None:
    recipe, preprocessing = resolve(load_recipe("default"), prints((40, 40, 40), (1, 1, 1), low_percentile), (channel,))
    assert preprocessing.intensity[0].kind == kind == recipe.intensity.normalization
    if kind == "dataset":
        assert preprocessing.intensity[0].mean == pytest.approx(80, abs=1)
        assert preprocessing.intensity[0].sd == pytest.approx(20, abs=1)


def test_given_figures_are_kept() -> None:
    chosen = [
        "grid.spacing=[2, 2, 3]",
        "patch.size=[24, 16, 8]",
        "intensity.normalization=dataset",
        "model.options={widths=[4, 8]}",
    ]
    recipe, preprocessing = resolve(load_recipe("default", chosen), prints((90, 90, 90), (1, 1, 1)), ("MRI",))
    assert preprocessing.spacing == (2, 2, 3)
    assert recipe.patch.size == (24, 16, 8)
    assert preprocessing.intensity[0].kind == "dataset"
    assert recipe.model.options["widths"] == [4, 8]
    assert len(recipe.model.options["strides"]) == 1


def test_a_z_score_is_asked_for_by_name() -> None:
    recipe, preprocessing = resolve(
        load_recipe("prostate-unet3d"), prints((90, 90, 20), (0.6, 0.6, 3.6), low_percentile=-1000), ("CT",)
    )
    assert preprocessing.intensity[0].kind == recipe.intensity.normalization == "zscore"
    assert preprocessing.spacing == (0.6, 0.6, 3.6)


def test_a_plan_stays_as_it_is_when_resolved_again() -> None:
    scans = prints((256, 256, 36), (1.25, 1.25, 7.7))
    recipe, preprocessing = resolve(load_recipe("default"), scans, ("MRI",))
    assert resolve(recipe, scans, ("MRI",)) == (recipe, preprocessing)


def test_fingerprints_are_taken_in_canonical_order() -> None:
    affine = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    classes = np.zeros((10, 20, 30), np.uint8)
    classes[2:5] = 1
    found = fingerprint(LoadedCase("a", np.arange(6000.0).reshape(1, 10, 20, 30), classes, Grid(classes.shape, affine)))
    np.testing.assert_allclose(found.spacing, (3, 1, 2))
    np.testing.assert_allclose(found.extent, (90, 10, 40))
    assert found.foreground_values.min() == 1200
