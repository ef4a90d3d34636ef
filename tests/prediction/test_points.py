"""Predictions at points equal those of the dense grid, alone or together, on any grid; outside is background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from farvox.bundle import Bundle, Inference
from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.prediction import Predictor
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.preprocessing.preprocess import preprocess
from tests.geometry.test_steps import oblique
from tests.prediction.networks import identity_bundle, point_network

VALUES = {200: "a", 500: "b", 600: "c"}
SHAPE = (13, 9, 11)
GRIDS = {
    "plain": np.diag([1.0, 1.0, 1.0, 1.0]),
    "anisotropic": np.diag([-0.7, 1.9, 3.3, 1.0]),
    "oblique": oblique((0, 1, 2), (1, 1, 1)),
    "oblique, axes swapped and flipped": oblique((2, 0, 1), (-1, 1, -1)),
}


def bundle(affine: np.ndarray, seed: int = 0, factor: float = 1.0, **options: object) -> Bundle:
    """A point network of random weights on a network space `factor` times as coarse as a scan of this affine."""
    order, _ = Grid(SHAPE, affine).nearest_axes
    i, j, k = (factor * Grid(SHAPE, affine).spacing[axis] for axis in order)
    made = identity_bundle(VALUES, (i, j, k), None, network=point_network(4, seed, **({"stride": 1} | options)))
    fixed = (IntensityNormalization(kind="dataset", low=-3, high=3),)
    return replace(made, manifest=made.manifest.model_copy(update={"preprocessing": _with(made, fixed)}))


def _with(made: Bundle, steps: tuple[IntensityNormalization, ...]) -> Preprocessing:
    return made.manifest.preprocessing.model_copy(update={"intensity": steps})


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def dense(made: Bundle, scan: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Network-space voxel centres in mm, (N, 3), and the output of the network's forward pass there, (N, classes)."""
    space = preprocess(scan[None], Grid(scan.shape, affine), made.manifest.preprocessing)
    with torch.inference_mode():
        probabilities = made.network(space.slab(0, space.grid.shape[2])[None])[0].softmax(0).flatten(1).T.numpy()
    return space.grid.voxel_to_mm(np.indices(space.grid.shape).reshape(3, -1).T), probabilities


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("factor", [1.0, 1.6, 0.8])
def test_a_point_alone_in_a_batch_and_on_the_dense_grid_has_the_same_prediction(name: str, factor: float) -> None:
    scan, affine = noise(*SHAPE), GRIDS[name]
    made = bundle(affine, factor=factor)
    centres, expected = dense(made, scan, affine)
    assert expected.std(0).min() > 0.03  # the output varies
    predictor = Predictor([made], "cpu")
    prepared = predictor.prepare(scan, affine)
    together = predictor.predict_points(prepared, centres)
    assert together.inside.all()
    assert together.probabilities.dtype == np.float32
    np.testing.assert_allclose(together.probabilities, expected, atol=1e-5)
    for n in np.random.default_rng(0).choice(len(centres), 20):
        alone = predictor.predict_points(prepared, centres[[n]])
        np.testing.assert_allclose(alone.probabilities[0], expected[n], atol=1e-5)


@pytest.mark.parametrize("name", GRIDS)
def test_voxel_centres_get_the_labels_of_segment(name: str) -> None:
    scan, affine = noise(*SHAPE), GRIDS[name]
    predictor = Predictor([bundle(affine), bundle(affine, seed=1)], "cpu")
    voxels = np.indices(SHAPE).reshape(3, -1).T
    predictions = predictor.predict_points(scan, Grid(SHAPE, affine).voxel_to_mm(voxels), affine)
    mask = predictor.segment(scan, affine)
    assert len(np.unique(mask)) > 2
    assert predictions.labels.dtype == mask.dtype
    assert (predictions.labels == mask.ravel()).mean() > 0.999  # a tie may fall either way
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)


def test_the_mean_is_taken_over_bundles_of_different_network_spaces() -> None:
    scan, affine = noise(*SHAPE), GRIDS["oblique"]
    made = [bundle(affine), bundle(affine, seed=1, factor=1.7), bundle(affine, seed=2, factor=0.6, stride=2)]
    points = Grid(SHAPE, affine).unit_to_mm(np.random.default_rng(0).uniform(-1, 1, (50, 3)))
    single = [Predictor([one], "cpu").predict_points(scan, points, affine).probabilities for one in made]
    np.testing.assert_allclose(
        Predictor(made, "cpu").predict_points(scan, points, affine).probabilities, np.mean(single, 0), atol=1e-6
    )


@pytest.mark.parametrize("window", [None, (8, 8, 8)])
def test_outside_the_field_of_view_is_background(window: tuple[int, int, int] | None) -> None:
    affine = GRIDS["oblique"]
    grid = Grid(SHAPE, affine)
    made = bundle(affine)
    made = replace(made, manifest=made.manifest.model_copy(update={"inference": Inference(patch_size=window)}))
    edge = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, 1], [-1, -1, -1]])
    points = np.concatenate([grid.unit_to_mm(0.999 * edge), grid.unit_to_mm(edge), [[1e4, 0, 0]]])
    points = np.concatenate([points, grid.unit_to_mm(1.001 * edge)])
    predictions = Predictor([made], "cpu").predict_points(noise(*SHAPE), points, affine)
    assert predictions.inside.tolist() == [True] * 8 + [False] * 5
    np.testing.assert_array_equal(predictions.probabilities[8:], [[1, 0, 0, 0]] * 5)
    np.testing.assert_array_equal(predictions.labels[8:], 0)
    assert (predictions.probabilities[:8, 0] < 0.999).all()


@pytest.mark.parametrize("window", [(8, 8, 8), (5, 9, 3), None])
@pytest.mark.parametrize("name", GRIDS)
def test_probabilities_of_other_networks_are_interpolated_between_voxels(
    name: str, window: tuple[int, int, int] | None
) -> None:
    # Brightness is linear in the voxel indices and so is, of the softmax of a linear output, the log ratio at voxels.
    affine, grid = GRIDS[name], Grid(SHAPE, GRIDS[name])
    i, j, k = np.indices(SHAPE)
    scan = (i + 2 * j + 3 * k).astype(np.float32) / 12

    class Ramp(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(1e-2))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            fraction = 0.1 + self.scale * image[:, :1]
            return torch.cat([1 - fraction, fraction], 1).log()

    order, _ = grid.nearest_axes
    x, y, z = (grid.spacing[axis] for axis in order)
    made = identity_bundle({7: "a"}, (x, y, z), window, network=Ramp())
    steps = (IntensityNormalization(kind="dataset", low=-100, high=100),)
    made = replace(made, manifest=made.manifest.model_copy(update={"preprocessing": _with(made, steps)}))
    voxels = np.random.default_rng(0).uniform(0, np.array(SHAPE) - 1, (200, 3))
    predictions = Predictor([made], "cpu").predict_points(scan, grid.voxel_to_mm(voxels), affine)
    np.testing.assert_allclose(predictions.probabilities[:, 1], 0.1 + 1e-2 * (voxels @ [1, 2, 3]) / 12, atol=1e-5)


def test_scans_are_accepted_as_in_segment(tmp_path: Path) -> None:
    affine = GRIDS["oblique"]
    nib.save(nib.Nifti1Image(noise(*SHAPE), affine), tmp_path / "scan.nii.gz")
    predictor = Predictor([bundle(affine)], "cpu")
    points = Grid(SHAPE, affine).voxel_to_mm(np.array([[3.3, 4.4, 5.5], [0, 0, 0]]))
    from_file = predictor.predict_points(tmp_path / "scan.nii.gz", points.tolist())
    np.testing.assert_allclose(
        predictor.predict_points(noise(*SHAPE), points, affine).probabilities, from_file.probabilities, atol=1e-4
    )
    none = predictor.predict_points(noise(*SHAPE), [], affine)
    assert none.probabilities.shape == (0, 4)
    assert none.labels.shape == none.inside.shape == (0,)


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ([1.0, 2.0, 3.0], r"shape \(3,\).*list of one"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([[1.0, 2.0, np.nan]], "NaN"),
        ([["a", "b", "c"]], "not numbers"),
        ([[1.0, 2.0, 3.0], [1.0]], "not numbers"),
        (None, "not numbers"),
    ],
)
def test_invalid_points_are_refused(points: object, word: str) -> None:
    predictor = Predictor([bundle(GRIDS["plain"])], "cpu")
    with pytest.raises(DataError, match=word):
        predictor.predict_points(noise(*SHAPE), points, np.eye(4))


def test_a_prepared_scan_belongs_to_its_predictor() -> None:
    one, other = (Predictor([bundle(GRIDS["plain"], seed=seed)], "cpu") for seed in (0, 1))
    prepared = one.prepare(noise(*SHAPE), np.eye(4))
    with pytest.raises(UsageError, match="another predictor"):
        other.predict_points(prepared, [[1, 1, 1]])
    with pytest.raises(UsageError, match="affine"):
        one.predict_points(prepared, [[1, 1, 1]], np.eye(4))
    with pytest.raises(DataError, match="2 channels"):
        one.prepare(noise(2, *SHAPE), np.eye(4))
