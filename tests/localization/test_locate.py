"""Localisation: exact centroids from few samples on any grid, absent structures, and the result as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.bundle import save_bundle
from farvox.errors import UsageError
from farvox.geometry import Grid
from farvox.io.landmarks import read_landmarks
from farvox.localization import Landmark, Landmarks, LocateOptions, locate, locate_files
from farvox.localization.estimate import MassEstimate, estimate_centroid
from farvox.localization.files import ErrorSummary, LocateResult, summarise
from farvox.localization.reference import PointError
from farvox.localization.search import proposal_covariance, quasi_random_points, sample_progressively
from farvox.prediction import Predictor
from farvox.progress import NullProgress
from farvox.types import FloatArray
from tests.data.files import oblique
from tests.localization.networks import blobs, threshold_bundle
from tests.prediction.networks import identity_bundle

GRIDS = {
    "plain": Grid((64, 60, 56), np.diag([2.0, 2.0, 2.0, 1.0])),
    "oblique, thick slices": Grid((96, 80, 26), oblique((1.4, 1.6, 5.0))),
}


def positions(grid: Grid, *fractions: tuple[float, float, float]) -> list[FloatArray]:
    return [grid.voxel_to_mm((np.array(fraction) * grid.shape)[None])[0] for fraction in fractions]


def spacing(grid: Grid) -> tuple[float, float, float]:
    order, _ = grid.nearest_axes
    i, j, k = (float(grid.spacing[axis]) for axis in order)
    return i, j, k


@pytest.mark.parametrize("name", GRIDS)
def test_centroids_are_accurate_to_a_fraction_of_a_voxel_with_few_samples(name: str) -> None:
    grid = GRIDS[name]
    predictor = Predictor([threshold_bundle(spacing(grid))], "cpu")
    centres = positions(grid, (0.31, 0.64, 0.42), (0.7, 0.3, 0.55))
    scan = blobs(grid, *centres)
    few, again, other, exhaustive = (
        locate(predictor, scan, samples=2400, seed=seed, exhaustive=every, affine=grid.affine)
        for seed, every in ((0, False), (0, False), (1, False), (0, True))
    )
    assert few == again
    assert few != other
    assert (exhaustive.n_samples, exhaustive.n_voxels, exhaustive.sample_fraction) == (
        grid.n_voxels,
        grid.n_voxels,
        1.0,
    )
    assert 1800 < few.n_samples <= 2400
    assert few.sample_fraction == few.n_samples / grid.n_voxels < 0.013
    assert [landmark.name for landmark in few] == ["apex", "base"]
    for found in (few, other, exhaustive):
        for landmark, centre in zip(found, centres, strict=True):
            away = grid.mm_to_voxel(np.array([landmark.point])) - grid.mm_to_voxel(centre[None])
            assert np.linalg.norm(away) < (0.1 if found is exhaustive else 0.5)
            assert 0.9 < landmark.confidence <= 1


def test_an_absent_structure_is_not_found() -> None:
    grid = GRIDS["plain"]
    predictor = Predictor([threshold_bundle(spacing(grid))], "cpu")
    (centre,) = positions(grid, (0.4, 0.4, 0.4))
    for exhaustive in (False, True):
        scan = blobs(grid, centre, None)
        scan[1, 0, 0, 0] = 1e-3  # a constant channel is refused
        found = locate(predictor, scan, exhaustive=exhaustive, samples=1200, affine=grid.affine)
        apex, base = found
        assert apex.point == pytest.approx(tuple(centre), abs=1.0)
        assert base.point is None
        assert base.confidence < 1e-3
    certain = locate(predictor, scan, affine=grid.affine, samples=1200, min_confidence=1.0)
    assert [landmark.point for landmark in certain] == [None, None]


def test_bundles_are_averaged_and_progress_is_reported() -> None:
    grid = GRIDS["plain"]
    centres = positions(grid, (0.3, 0.5, 0.5), (0.6, 0.5, 0.4))
    fractions: list[float] = []

    class Recorder(NullProgress):
        def update(self, task: str, fraction: float, **info: object) -> None:
            fractions.append(fraction)

    one, two = threshold_bundle((2, 2, 2)), threshold_bundle((4, 4, 4))
    found = locate(Predictor([one, two], "cpu"), blobs(grid, *centres), affine=grid.affine, progress=Recorder())
    assert found.n_voxels == grid.n_voxels
    assert found.sample_fraction < 0.04
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-2] <= fractions[-1] == 1
    for landmark, centre in zip(found, centres, strict=True):
        assert landmark.point == pytest.approx(tuple(centre), abs=0.5)


def test_patch_networks_are_refused_unless_the_search_is_exhaustive() -> None:
    predictor = Predictor([identity_bundle({5: "five"}, (1, 1, 1), (12, 12, 12))], "cpu")
    scan = np.zeros((16, 14, 12), np.float32)
    scan[4:9, 5:8, 2:9] = 1
    with pytest.raises(UsageError) as error:
        locate(predictor, scan, affine=np.eye(4))
    assert "contains unet3d, which cannot be evaluated at single points" in str(error.value)
    assert "obelisk-dense, obelisk-mlp" in str(error.value)
    assert "add --exhaustive (exhaustive=True)" in str(error.value)
    (landmark,) = locate(predictor, scan, exhaustive=True, affine=np.eye(4))
    assert landmark.point == pytest.approx((6, 6, 5), abs=1e-3)
    with pytest.raises(UsageError, match="contains obelisk-unary trained on patches"):
        locate(Predictor([threshold_bundle((1, 1, 1), (12, 12, 12))], "cpu"), np.stack((scan, scan)), affine=np.eye(4))


def test_landmarks_are_a_sequence_a_table_and_a_csv_file(tmp_path: Path) -> None:
    apex = Landmark(1, "apex", (1.25, -2.0, 30.0), 0.875)
    landmarks = Landmarks("s1", (apex, Landmark(4, "b[ase]", None, 0.25)), 50, 1000)
    assert (len(landmarks), landmarks[0], landmarks["b[ase]"].value, landmarks[:1]) == (2, apex, 4, (apex,))
    with pytest.raises(KeyError, match="tip"):
        landmarks["tip"]
    assert repr(landmarks) == "Landmarks(s1: 1 of 2 found, 5.0% of the voxels sampled)"
    assert "<td>apex</td><td>1.2</td><td>-2.0</td><td>30.0</td><td>0.88</td>" in landmarks._repr_html_()
    landmarks.to_csv(str(tmp_path / "points.csv"))
    assert (tmp_path / "points.csv").read_text(encoding="utf-8").splitlines() == [
        "case,landmark,x,y,z,confidence,samples,sample_fraction",
        "s1,apex,1.2500,-2.0000,30.0000,0.8750,50,0.05000",
        "s1,b[ase],,,,0.2500,50,0.05000",
    ]
    assert read_landmarks(tmp_path / "points.csv").points == {"s1": {"apex": (1.25, -2.0, 30.0)}}
    pytest.importorskip("pandas")
    frame = landmarks.to_dataframe()
    assert list(frame.columns) == ["case", "label", "landmark", "x", "y", "z", "confidence"]
    assert frame["z"][0] == 30
    assert np.isnan(frame["x"][1])


def test_a_bundle_folder_and_a_file_are_enough(tmp_path: Path) -> None:
    bundle = threshold_bundle((2.0, 2.0, 2.0))
    save_bundle(tmp_path / "bundle", bundle.network, bundle.manifest, bundle.recipe)
    grid = GRIDS["plain"]
    centres = positions(grid, (0.4, 0.4, 0.4), (0.6, 0.6, 0.6))
    image = np.moveaxis(blobs(grid, *centres), 0, -1)
    nib.save(nib.Nifti1Image(image, grid.affine), tmp_path / "s1.nii.gz")
    landmarks = locate(str(tmp_path / "bundle"), str(tmp_path / "s1.nii.gz"), samples=1200)
    assert landmarks.case == "s1"
    assert landmarks["base"].point == pytest.approx(tuple(centres[1]), abs=1.0)
    from_image = locate(Predictor.load(tmp_path / "bundle"), nib.load(tmp_path / "s1.nii.gz"), samples=1200)
    assert from_image.landmarks == landmarks.landmarks
    (result,) = locate_files(Predictor.load(tmp_path / "bundle"), [tmp_path], LocateOptions(samples=1200))
    assert result.landmarks == landmarks


@pytest.mark.parametrize(
    ("covariance", "sample_spacing", "expected"), [(4.0, 3.0, 2.25 * 4 + 9), (4.0, 1.0, 2.25 * 4 + 4), (0.0, 0.0, 4)]
)
def test_proposals_are_wider_than_the_structure(covariance: float, sample_spacing: float, expected: float) -> None:
    mass = MassEstimate(np.zeros(3), covariance * np.eye(3), sample_spacing, 1.0, 1.0)
    np.testing.assert_allclose(proposal_covariance(mass, spacing_mm=2.0), expected * np.eye(3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"samples": 299},
        {"samples": 120, "rounds": 3},
        {"min_confidence": 1.5},
        {"min_confidence": float("nan")},
    ],
)
def test_options_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        LocateOptions(**wrong)  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 2.0))
def test_the_centroid_does_not_depend_on_the_sampling_density(seed: int, slope: float) -> None:
    # Density exp(slope·x) along x in a cube of 20 mm; a ball of 8 mm about the origin.
    cube = quasi_random_points(8000, np.random.default_rng(seed))
    ends = np.exp(slope * np.array([-10, 10]) / 10)
    x = 10 * np.log(ends[0] + cube[:, 0] * (ends[1] - ends[0])) / slope
    points = np.column_stack((x, 20 * cube[:, 1:] - 10))
    ball = (np.linalg.norm(points, axis=1) < 8).astype(np.float32)
    mass = estimate_centroid(points, ball, np.exp(-slope * x / 10))
    assert mass.centre == pytest.approx(0, abs=0.4)
    assert np.diag(mass.covariance) == pytest.approx(8**2 / 5, rel=0.15)
    assert mass.mean_probability == pytest.approx(1)


def test_an_elongated_structure_is_covered_and_an_island_excluded() -> None:
    points = np.stack(np.meshgrid(*[np.arange(-60, 61, 3.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rod = (abs(points[:, 0] - 3) <= 48) & (np.linalg.norm(points[:, 1:], axis=1) < 8)
    island = np.linalg.norm(points - (0, 48, 48), axis=1) < 11
    probabilities = 0.05 + 0.9 * (rod | island)
    volumes = np.full(len(points), 27.0)
    assert estimate_centroid(points, probabilities, volumes).centre == pytest.approx([3, 0, 0], abs=0.1)
    both = estimate_centroid(points, probabilities, volumes, whole=True).centre
    assert both == pytest.approx(points[rod | island].mean(0), abs=1e-6)
    assert estimate_centroid(points, np.zeros(len(points), np.float32), volumes).mean_probability < 1e-20


def test_points_are_evenly_distributed_and_volumes_sum_to_the_scan() -> None:
    rng = np.random.default_rng(0)
    counts, _ = np.histogramdd(quasi_random_points(1000, rng), bins=5, range=[(0, 1)] * 3)
    assert counts.std() < 1.7  # 2.8 at random
    assert counts.min() >= 4
    grid = GRIDS["oblique, thick slices"]
    (centre,) = positions(grid, (0.3, 0.4, 0.5))

    def evaluate(points: FloatArray) -> FloatArray:
        ball = np.exp(-((points - centre) ** 2).sum(1) / 200)
        return np.stack((1 - ball, ball), -1)

    drawn = sample_progressively(evaluate, grid, 2.0, rounds=4, samples=2000, seed=3)
    assert drawn.volumes.sum() == pytest.approx(grid.n_voxels * grid.voxel_ml * 1000, rel=0.05)
    assert (np.abs(grid.mm_to_unit(drawn.points_mm)) <= 1 + 1e-9).all()
    near = np.linalg.norm(drawn.points_mm - centre, axis=1) < 20
    assert near.mean() > 0.4


def test_errors_are_summarised_for_each_landmark() -> None:
    here = (1.0, 2.0, 3.0)
    found, lost = Landmark(1, "tip", here, 0.9), Landmark(1, "tip", None, 0.1)
    near, far, absent = PointError(here, 1.0, 0.5), PointError(here, 4.0, 2.0), PointError(None, None, None)
    missed = PointError(here, None, None)
    pairs = [(found, near), (found, far), (lost, missed), (found, absent), (found, absent), (lost, absent)]
    results = [LocateResult(f"s{n}", Landmarks("s", (mark,), 1, 1), (e,), 1.0) for n, (mark, e) in enumerate(pairs)]
    summary = summarise(
        [*results, LocateResult("bad", None, None, 1.0, "no file"), replace(results[0], point_errors=None)]
    )
    assert summary is not None
    assert summary.all == summary.landmarks["tip"] == ErrorSummary(2, 1, 2, 2.5, 4.0, 1.25, 2.0)
    cells = [list(column.cells) for column in summary.table().columns]
    assert [column[0] for column in cells] == ["tip", "2", "2.50", "4.00", "1.25", "2.00", "1", "2"]
    assert summarise([]) is None
