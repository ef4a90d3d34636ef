"""Surface metrics against values computed by hand, DeepMind's surface-distance 0.1, brute force and MONAI."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from farvox.metrics import hd95, surface_dice, surface_distances
from farvox.metrics.surface import _areas
from farvox.types import Array
from tests.conftest import real_data

some_masks = arrays(bool, (5, 4, 3)).filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5])] * 3)
CUBIC, THICK = (1.0, 1.0, 1.0), (0.4, 0.4, 12.0)


def box(*ranges: tuple[int, int], shape: tuple[int, int, int] = (20, 20, 20)) -> Array:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def both(prediction: Array, reference: Array, spacing: tuple[float, ...], tolerance: float) -> tuple:
    distances = surface_distances(prediction, reference, np.diag(spacing))
    return hd95(distances), surface_dice(distances, tolerance)


def balls() -> dict[str, Array]:
    points = np.meshgrid(*[np.arange(n) * s for n, s in zip((150, 150, 9), THICK, strict=True)], indexing="ij")
    centres = {"24": (30, 30, 48, 24), "26": (30, 30, 48, 26), "24 moved": (33, 30, 48, 24)}
    return {
        name: sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) < radius**2
        for name, (*centre, radius) in centres.items()
    }


def blobs() -> tuple[Array, Array]:
    blob = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(60, 60, 40)), 5) > 0.02
    return blob, ndimage.shift(blob.astype(float), (1.2, -0.7, 0.6), order=1) > 0.5


def shapes() -> dict[str, tuple]:
    """Masks, spacing, tolerance; HD95 and surface Dice by surface-distance 0.1."""
    ball, (blob, moved) = balls(), blobs()
    tall = box((15, 115), (15, 115), (2, 7), shape=(130, 130, 9))
    wider = box((10, 120), (10, 120), (2, 7), shape=(130, 130, 9))
    longer = box((15, 115), (15, 115), (2, 8), shape=(130, 130, 9))
    cube, beside = (box((n, n + 20), (10, 30), (10, 30), shape=(40, 40, 40)) for n in (10, 12))
    at_edge, shorter = (box((0, n), (0, 30), (0, 30), shape=(30, 30, 30)) for n in (20, 18))
    return {
        "cubes 2 mm apart": (cube, beside, CUBIC, 1, 2.0, 0.697458),
        "box 2 mm wider in plane": (tall, wider, THICK, 1, 2.039608, 0.317110),
        "box a thick slice longer": (tall, longer, THICK, 1, 12.0, 0.854810),
        "balls of 24 and 26 mm": (ball["24"], ball["26"], THICK, 1, 12.0, 0.590923),
        "balls 3 mm apart": (ball["24"], ball["24 moved"], THICK, 1, 2.8, 0.737103),
        "at the edge of the scan": (at_edge, shorter, CUBIC, 1, 2.0, 0.792699),
        "random, cubic voxels": (blob, moved, CUBIC, 1, 2.0, 0.876176),
        "random, thick slices": (blob, moved, (0.7, 0.7, 5.0), 1, 2.1, 0.857111),
    }


@pytest.mark.parametrize("name", shapes())
def test_same_values_as_surface_distance(name: str) -> None:
    *arguments, distance, agreement = shapes()[name]
    assert both(*arguments) == pytest.approx((distance, agreement), abs=1e-5)


def test_single_voxels_three_and_four_apart() -> None:
    """The eight corners of each voxel are 2 or 3 and 3 or 4 voxels from those of the other."""
    a, b = box((3, 4), (3, 4), (3, 4)), box((6, 7), (7, 8), (3, 4))
    assert both(a, b, CUBIC, 4.9) == pytest.approx((5, 0.75))
    assert both(a, b, CUBIC, 5) == pytest.approx((5, 1))
    assert both(a, b, (2, 1, 1), 5) == pytest.approx((np.hypot(6, 4), 0.25))


@pytest.mark.parametrize(("axis", "step"), [(0, 0.5), (1, 0.8), (2, 3.0)])
def test_plates_shifted_along_an_axis_measure_that_axis(axis: int, step: float) -> None:
    """Of two plates one voxel thick, the near sides are two steps apart and the far sides three."""
    a = np.moveaxis(box((4, 5), (2, 9), (2, 9)), 0, axis)
    b = np.roll(a, 3, axis)
    for tolerance, agreement in ((1.99, 0), (2, 0.5), (2.99, 0.5), (3, 1)):
        assert both(a, b, (0.5, 0.8, 3.0), tolerance * step) == pytest.approx((3 * step, agreement))


def test_a_plane_has_the_area_of_its_voxels_faces() -> None:
    """A slab through the whole scan has two sides of 20 × 20 faces of 0.8 × 3 mm, apart from its rim."""
    distances = surface_distances(
        box((5, 9), (0, 20), (0, 20)), box((5, 9), (0, 20), (0, 20)), np.diag((0.5, 0.8, 3.0))
    )
    sides = 2 * 19 * 19 * 0.8 * 3
    rim = distances.prediction_areas.sum() - sides
    assert distances.reference_areas.sum() == pytest.approx(sides + rim)
    assert 0 < rim < 4 * 20 * 5 * 0.8 * 3


def test_balls_of_two_radii_are_their_difference_apart() -> None:
    radius = np.sqrt(((np.indices((33, 33, 33)) - 16.0) ** 2).sum(0))
    value, agreement = both(radius <= 12, radius <= 8, CUBIC, 5)
    assert value == pytest.approx(4, abs=0.6)
    assert agreement == 1
    assert both(radius <= 12, radius <= 8, CUBIC, 2)[1] == 0
    areas = surface_distances(radius <= 12, radius <= 8, np.eye(3)).prediction_areas
    assert areas.sum() == pytest.approx(4 * np.pi * 12**2, rel=0.1)


def test_percentile_leaves_out_a_small_far_area() -> None:
    a = box((2, 12), (2, 12), (5, 6))
    b = a.copy()
    b[2, 2, 18] = True
    value, agreement = both(a, b, CUBIC, 0)
    areas = surface_distances(a, b, np.eye(3))
    far = 8 * np.sqrt(3) / 8
    assert value == 0
    assert areas.reference_areas.sum() - areas.prediction_areas.sum() == pytest.approx(far)
    assert agreement == pytest.approx(1 - far / (areas.prediction_areas.sum() + areas.reference_areas.sum()))


def test_voxels_outside_the_scan_count_as_outside() -> None:
    whole = np.ones((5, 5, 5), bool)
    inner = np.pad(whole, 2)
    at_edge, within = (surface_distances(mask, mask, np.eye(3)).prediction_areas for mask in (whole, inner))
    np.testing.assert_allclose(at_edge, within)


def test_sheared_axes_measure_in_space() -> None:
    axes = np.array([[1.0, 0, 0], [0, 1.0, 2.0], [0, 0, 3.0]])
    a, b = box((3, 4), (3, 9), (3, 9)), box((7, 8), (3, 9), (3, 9))
    assert hd95(surface_distances(a, b, axes)) == pytest.approx(4)
    assert hd95(surface_distances(box((3, 9), (3, 9), (3, 4)), box((3, 9), (3, 9), (5, 6)), axes)) == pytest.approx(
        np.hypot(4, 6)
    )
    # A face spanned by the second and third axis is a parallelogram of 1 × 3 mm.
    assert _areas(axes)[0b11110000] == pytest.approx(3)
    assert _areas(axes)[0b11001100] == pytest.approx(np.hypot(2, 3))


def test_tolerance_of_a_voxel_holds_for_float32_spacing() -> None:
    step = float(np.float32(0.1))
    assert step > 0.1
    a, b = box((3, 4), (3, 9), (3, 9)), box((4, 5), (3, 9), (3, 9))
    assert both(a, b, (step, step, step), 0.1)[1] == 1


def test_no_surface_is_undefined() -> None:
    none, some = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    for pair in ((none, none), (none, some), (some, none)):
        distances = surface_distances(*pair, np.eye(3))
        assert hd95(distances) is None
        assert surface_dice(distances, 1) is None


def test_border_with_ignored_voxels_is_no_surface() -> None:
    """A bar that runs on into unknown voxels has the area of its open part, and no face where they begin."""
    bar = box((2, 18), (5, 6), (5, 6))
    slab = box((0, 10), (0, 20), (0, 20))
    hidden = surface_distances(bar & ~slab, bar & ~slab, np.eye(3), slab).prediction_areas.sum()
    longer = surface_distances(box((0, 18), (5, 6), (5, 6)), bar, np.eye(3)).prediction_areas.sum()
    side = surface_distances(box((0, 19), (5, 6), (5, 6)), bar, np.eye(3)).prediction_areas.sum() - longer
    closed = surface_distances(bar & ~slab, bar & ~slab, np.eye(3)).prediction_areas.sum()
    end = (closed - 7 * side) / 2
    assert hidden == pytest.approx(7.5 * side + end, abs=side)
    assert hidden < closed + side


def test_slices_annotated_one_by_one_have_the_walls_of_the_whole() -> None:
    """With every second slice unknown, the outline of a long box counts as if all slices were known."""
    whole = box((4, 14), (5, 15), (0, 20))
    unknown = box((0, 20), (0, 20), (0, 20)) & (np.arange(20) % 2 == 1)
    sparse = surface_distances(whole & ~unknown, whole & ~unknown, np.diag(THICK), unknown)
    full = surface_distances(whole, whole, np.diag(THICK))
    assert sparse.prediction_areas.sum() == pytest.approx(full.prediction_areas.sum(), rel=0.06)
    wrong = surface_distances(whole & ~unknown, box((4, 16), (5, 15), (0, 20)) & ~unknown, np.diag(THICK), unknown)
    assert hd95(wrong) == pytest.approx(0.8)


@settings(deadline=None)
@given(some_masks, some_masks, spacings, st.sampled_from([0.0, 0.7, 1.0, 3.0]))
def test_equal_to_brute_force_and_symmetric(
    prediction: Array, reference: Array, spacing: tuple, tolerance: float
) -> None:
    """Cells found one by one, every pair of them compared, areas taken from MONAI's table."""
    from monai.metrics.utils import get_code_to_measure_table

    table = get_code_to_measure_table(spacing)[0].flatten().double().numpy()

    def surface(mask: Array) -> tuple[Array, Array]:
        padded, points, areas = np.pad(mask, 1), [], []
        for cell in itertools.product(*[range(n + 1) for n in mask.shape]):
            corner = padded[tuple(slice(c, c + 2) for c in cell)].ravel()
            if 0 < corner.sum() < 8:
                points.append(np.array(cell) * spacing)
                areas.append(table[int("".join(map(str, corner.astype(int))), 2)])
        return np.array(points), np.array(areas)

    (p, p_areas), (r, r_areas) = surface(prediction), surface(reference)
    every = np.sqrt(((p[:, None] - r[None]) ** 2).sum(-1))
    distances = surface_distances(prediction, reference, np.diag(spacing))
    np.testing.assert_allclose(distances.prediction, every.min(1), atol=1e-9)
    np.testing.assert_allclose(distances.reference, every.min(0), atol=1e-9)
    np.testing.assert_allclose(distances.prediction_areas, p_areas, rtol=1e-5)
    near = p_areas[every.min(1) <= tolerance + 1e-9].sum() + r_areas[every.min(0) <= tolerance + 1e-9].sum()
    assert surface_dice(distances, tolerance) == pytest.approx(near / (p_areas.sum() + r_areas.sum()), abs=1e-5)
    assert both(reference, prediction, spacing, tolerance) == pytest.approx(
        both(prediction, reference, spacing, tolerance)
    )
    assert both(prediction, prediction, spacing, 0) == pytest.approx((0, 1))


@settings(deadline=None, max_examples=25)
@given(some_masks, some_masks, st.sampled_from([2.0, 0.5]))
def test_larger_voxels_are_larger_distances(prediction: Array, reference: Array, factor: float) -> None:
    once, scaled = (both(prediction, reference, (s, s, 3 * s), s)[0] for s in (1.0, factor))
    assert scaled == pytest.approx(factor * once)


@pytest.mark.filterwarnings("ignore")
def test_same_surface_dice_as_monai_with_subvoxels() -> None:
    import torch
    from monai.metrics import compute_surface_dice

    cases = [arguments[:4] for arguments in shapes().values()]
    label = np.asarray(_chaos_label())
    slipped = np.roll(label, 1, axis=2)
    cases += [(label == value, slipped == value, (1.5, 1.5, 7.7), 3.0) for value in np.unique(label)[1:]]
    for prediction, reference, spacing, tolerance in cases:
        tensors = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (prediction, reference)]
        options = {"class_thresholds": [tolerance], "include_background": True, "use_subvoxels": True}
        expected = compute_surface_dice(*tensors, spacing=spacing, **options).item()
        assert both(prediction, reference, spacing, tolerance)[1] == pytest.approx(expected, abs=1e-4)


def _chaos_label() -> Array:
    import nibabel as nib

    files = sorted((real_data("chaos_mr_t2spir") / "labelsTr").glob("*.nii.gz"))
    return np.asarray(nib.load(files[0]).dataobj).astype(int)
