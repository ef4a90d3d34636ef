"""Surface figures against hand-computed shapes, brute force and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from farvox.metrics import hd95, surface_dice, surface_distances

some_masks = arrays(bool, (5, 4, 3)).filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5])] * 3)


def box(*ranges: tuple[int, int], shape=(20, 20, 20)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def brute_force(prediction, reference, axes):
    """Directed distances by comparing every pair of surface voxels, surfaces found neighbour by neighbour."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
        return np.argwhere(mask & ~np.all(inner, axis=0)) @ np.asarray(axes).T

    p, r = surface(prediction), surface(reference)
    every = np.sqrt(((p[:, None] - r[None]) ** 2).sum(-1))
    return every.min(1), every.min(0)


def both(prediction, reference, spacing, tolerance):
    distances = surface_distances(prediction, reference, np.diag(spacing))
    return hd95(distances), surface_dice(distances, tolerance)


def test_single_voxels_three_and_four_apart():
    a, b = box((3, 4), (3, 4), (3, 4)), box((6, 7), (7, 8), (3, 4))
    assert both(a, b, (1, 1, 1), 4.9) == pytest.approx((5, 0))
    assert both(a, b, (1, 1, 1), 5) == pytest.approx((5, 1))
    assert both(a, b, (2, 1, 1), 5) == pytest.approx((np.hypot(6, 4), 0))


@pytest.mark.parametrize(("axis", "step"), [(0, 0.5), (1, 0.8), (2, 3.0)])
def test_plates_shifted_along_an_axis_measure_that_axis(axis, step):
    """Every voxel of a plate one voxel thick is surface and lies exactly the shift away from the other."""
    a = np.moveaxis(box((4, 5), (2, 9), (2, 9)), 0, axis)
    b = np.roll(a, 3, axis)
    assert both(a, b, (0.5, 0.8, 3.0), 3 * step) == pytest.approx((3 * step, 1))
    assert both(a, b, (0.5, 0.8, 3.0), 2.99 * step) == pytest.approx((3 * step, 0))


def test_cubes_shifted_by_one_voxel_of_three_mm():
    """Cubes of 6³, in mm 3×1×1, one voxel apart along I: of 152 surface voxels each,

    the 36 of the near end are 3 mm off; the 4 rings of 20 between the ends and the rim of the far end coincide with
    surface; inside the far end 12 voxels are 1 mm and 4 are 2 mm from the ring of the other cube in their layer.
    """
    a, b = box((4, 10), (4, 10), (4, 10)), box((5, 11), (4, 10), (4, 10))
    for directed in surface_distances(a, b, np.diag([3.0, 1.0, 1.0])):
        assert sorted(directed) == pytest.approx([0] * 100 + [1] * 12 + [2] * 4 + [3] * 36)
    assert both(a, b, (3, 1, 1), 1) == pytest.approx((3, 112 / 152))
    assert both(a, b, (3, 1, 1), 2.9) == pytest.approx((3, 116 / 152))


def test_balls_of_two_radii_are_their_difference_apart():
    points = np.indices((33, 33, 33)) - 16.0
    radius = np.sqrt((points**2).sum(0))
    value, agreement = both(radius <= 12, radius <= 8, (1, 1, 1), 5)
    assert value == pytest.approx(4, abs=0.6)
    assert agreement == 1
    assert both(radius <= 12, radius <= 8, (1, 1, 1), 2)[1] == 0


def test_percentile_passes_over_few_far_voxels():
    a = box((2, 12), (2, 12), (5, 6))
    b = a.copy()
    b[2, 2, 18] = True
    assert both(a, b, (1, 1, 1), 0) == pytest.approx((0, 200 / 201))


def test_beyond_the_scan_counts_as_outside():
    whole = np.ones((5, 5, 5), bool)
    ahead, back = surface_distances(whole, whole, np.eye(3))
    assert len(ahead) == len(back) == 5**3 - 3**3


def test_sheared_axes_measure_in_space():
    axes = np.array([[1.0, 0, 0], [0, 1.0, 2.0], [0, 0, 3.0]])
    a, b = box((3, 4), (3, 4), (3, 4)), box((3, 4), (3, 4), (5, 6))
    assert hd95(surface_distances(a, b, axes)) == pytest.approx(np.hypot(4, 6))


def test_tolerance_of_a_voxel_holds_for_float32_spacing():
    step = float(np.float32(0.1))
    assert step > 0.1
    a, b = box((3, 4), (3, 9), (3, 9)), box((4, 5), (3, 9), (3, 9))
    assert both(a, b, (step, step, step), 0.1)[1] == 1


def test_no_surface_is_undefined():
    none, some = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    for pair in ((none, none), (none, some), (some, none)):
        distances = surface_distances(*pair, np.eye(3))
        assert hd95(distances) is None
        assert surface_dice(distances, 1) is None


def test_border_with_ignored_voxels_is_no_surface():
    """A bar whose middle is unknown: its visible ends agree, and the cut faces add nothing."""
    bar = box((2, 18), (5, 6), (5, 6))
    longer = box((2, 19), (5, 6), (5, 6))
    slab = box((0, 20), (0, 20), (0, 20)) & (np.arange(20)[:, None, None] < 10)
    ahead, back = surface_distances(bar & ~slab, longer & ~slab, np.eye(3), slab)
    assert (len(ahead), len(back)) == (8, 9)
    cube = box((4, 10), (4, 10), (4, 10))
    hidden = box((9, 11), (0, 20), (0, 20))
    ahead, _ = surface_distances(cube & ~hidden, cube & ~hidden, np.eye(3), hidden)
    assert len(ahead) == 36 + 4 * 20
    assert len(surface_distances(cube & ~hidden, cube & ~hidden, np.eye(3))[0]) == 36 + 3 * 20 + 36


@settings(deadline=None)
@given(some_masks, some_masks, spacings, st.sampled_from([0.0, 0.7, 1.0, 3.0]))
def test_equal_to_brute_force_and_symmetric(prediction, reference, spacing, tolerance):
    expected = brute_force(prediction, reference, np.diag(spacing))
    distances = surface_distances(prediction, reference, np.diag(spacing))
    for found, wanted in zip(distances, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    within = np.concatenate(expected) <= tolerance + 1e-9
    assert surface_dice(distances, tolerance) == pytest.approx(within.mean())
    assert both(reference, prediction, spacing, tolerance) == pytest.approx(
        both(prediction, reference, spacing, tolerance)
    )
    assert both(prediction, prediction, spacing, 0) == (0, 1)


@settings(deadline=None, max_examples=25)
@given(some_masks, some_masks, st.sampled_from([2.0, 0.5]))
def test_larger_voxels_are_larger_distances(prediction, reference, factor):
    once, scaled = (both(prediction, reference, (s, s, 3 * s), s)[0] for s in (1.0, factor))
    assert scaled == pytest.approx(factor * once)


@pytest.mark.filterwarnings("ignore")
def test_same_values_as_monai():
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    random = np.random.default_rng(3)
    ball = np.sqrt(((np.indices((24, 20, 16)) - np.array([12, 10, 8])[:, None, None, None]) ** 2).sum(0))
    for spacing in ([1.0, 1.0, 1.0], [0.7, 0.8, 5.0]):
        prediction, reference = (ball + random.normal(0, 1, ball.shape) < radius for radius in (6, 7))
        tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        value, agreement = both(prediction, reference, spacing, 1.5)
        hausdorff = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
        surface = compute_surface_dice(*tensors, class_thresholds=[1.5], include_background=True, spacing=spacing)
        assert value == pytest.approx(hausdorff.item(), rel=1e-5)
        assert agreement == pytest.approx(surface.item(), rel=1e-5)
