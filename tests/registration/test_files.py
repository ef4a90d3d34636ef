"""Result files: the moved scan equals that of ITK with the field; labels, metrics; and no files after an error."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io import read_label, read_scan
from farvox.io.images_2d import read_image_2d_or_3d
from farvox.prediction import Predictor
from farvox.registration import RegisterOptions
from farvox.registration.files import Pair, read_pair, register_to_folder
from tests.conftest import real_data
from tests.registration.made import grid_about_origin, intensity_bundle, rotated_axes, scan_on, wave

OPTIONS = RegisterOptions(features="penultimate", iterations=8, smoothness=2.0)
FIXED = grid_about_origin((20, 22, 18), (3.0, 2.5, 3.0), rotated_axes(15))
MOVING = grid_about_origin(
    (24, 20, 22), (2.5, 3.0, 2.6), rotated_axes(-10) @ np.array([[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]])
)


def save(path: Path, grid: Grid, displaced: bool = False, dtype: str = "float32") -> Path:
    """A scan of the anatomy; integer scans are multiplied by 100."""
    image = scan_on(grid, wave if displaced else None).image[0]
    values = image.astype(dtype) if dtype == "float32" else np.round(100 * image).astype(dtype)
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(values, grid.affine), path)
        return path
    lps = np.diag([-1.0, -1, 1]) @ grid.affine[:3]
    written = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    written.SetSpacing(grid.spacing.tolist())
    written.SetOrigin(lps[:, 3].tolist())
    written.SetDirection((lps[:, :3] / grid.spacing).ravel().tolist())
    sitk.WriteImage(written, str(path))
    return path


def save_labels(path: Path, scan: Path) -> Path:
    image = read_scan(scan).image[0].astype(np.float32)
    labels = np.where(image > image.max() / 3, 4, np.where(image < image.min() / 3, 9, 0)).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, read_scan(scan).grid.affine), path)
    return path


@pytest.mark.parametrize(
    ("fixed_name", "moving_name", "dtype"), [("a.nii.gz", "b.mha", "float32"), ("a.nrrd", "b.nii.gz", "int16")]
)
def test_itk_makes_the_same_scan_from_the_field(tmp_path: Path, fixed_name: str, moving_name: str, dtype: str) -> None:
    fixed, moving = save(tmp_path / fixed_name, FIXED, True, dtype), save(tmp_path / moving_name, MOVING, False, dtype)
    labels = save_labels(tmp_path / "b_labels.nii.gz", moving)
    predictor = Predictor([intensity_bundle(2.5, unit=1 if dtype == "float32" else 100)], "cpu")
    outcome = register_to_folder(
        read_pair(fixed, moving, predictor, save_labels(tmp_path / "a_labels.nii.gz", fixed), labels),
        predictor,
        tmp_path / "out" / "deep",
        OPTIONS,
    )
    field = sitk.ReadImage(str(outcome.files["field"]), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(field)
    still, moved = sitk.ReadImage(str(fixed)), sitk.ReadImage(str(moving), sitk.sitkFloat32)
    default = float(sitk.GetArrayViewFromImage(moved).min())
    expected = sitk.GetArrayFromImage(sitk.Resample(moved, still, transform, sitk.sitkLinear, default))
    found = sitk.ReadImage(str(outcome.files["moved"]))
    assert found.GetSize() == still.GetSize()
    np.testing.assert_allclose(found.GetDirection(), still.GetDirection(), atol=1e-6)
    values = sitk.GetArrayFromImage(found)
    assert values.dtype == np.dtype(dtype)
    # A voxel right at the moving scan's face may be inside for one and outside for the other.
    tolerance = 1e-3 if dtype == "float32" else 0.51
    assert (np.abs(values - expected) < tolerance).mean() > 0.999
    assert np.std(expected) > 100 * tolerance
    propagated = sitk.GetArrayFromImage(
        sitk.Resample(sitk.ReadImage(str(labels)), still, transform, sitk.sitkNearestNeighbor, 0)
    )
    written, grid = read_label(outcome.files["labels"])
    assert grid.difference_to(read_scan(fixed).grid) is None
    assert (written.transpose(2, 1, 0) == propagated).mean() > 0.999
    assert set(np.unique(written)) == {0, 4, 9}

    document = json.loads(outcome.files["metrics"].read_text(encoding="utf-8"))
    assert [row["value"] for row in document["dice"]] == [4, 9]
    assert all(row["after"] > row["before"] + 0.03 for row in document["dice"])
    assert document["jacobian"]["folding_fraction"] == 0
    assert outcome.files["figure"].read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == sorted(
        path.name for path in outcome.files.values()
    )


def test_real_scans_agree_with_itk_too(tmp_path: Path) -> None:
    folder = real_data("mscmrseg_bssfp") / "imagesTr"  # oblique, 8 mm slices
    fixed, moving = sorted(folder.glob("*.nii.gz"))[:2]
    predictor = Predictor([intensity_bundle(4.0, unit=200)], "cpu")
    options = RegisterOptions("penultimate", "centers", iterations=6)
    outcome = register_to_folder(read_pair(fixed, moving, predictor), predictor, tmp_path / "out", options)
    still, other = sitk.ReadImage(str(fixed)), sitk.ReadImage(str(moving), sitk.sitkFloat32)
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(outcome.files["field"]), sitk.sitkVectorFloat64))
    default = float(sitk.GetArrayViewFromImage(other).min())
    expected = sitk.GetArrayFromImage(sitk.Resample(other, still, transform, sitk.sitkLinear, default))
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(outcome.files["moved"])))
    assert (np.abs(found - expected) < 0.01 * expected.std()).mean() > 0.995
    assert all(level.after < level.before for level in outcome.metrics.feature_distance)


def test_2d_image_files_stay_2d(tmp_path: Path) -> None:
    grid = grid_about_origin((30, 26, 1), (2.0, 2.0, 1.0))
    for name, displaced in (("fixed.mha", True), ("moving.mha", False)):
        pixels = scan_on(grid, wave if displaced else None).image[0, :, :, 0]
        image = sitk.GetImageFromArray(pixels.T.copy())
        image.SetSpacing((2.0, 2.0))
        image.SetOrigin((-29.0, -25.0))
        sitk.WriteImage(image, str(tmp_path / name))
    scan = read_image_2d_or_3d(tmp_path / "fixed.mha")
    assert scan.grid.shape == (30, 26, 1)
    np.testing.assert_allclose(scan.grid.affine @ [0, 0, 0, 1], [29, 25, 0, 1])
    predictor = Predictor([intensity_bundle(2.0)], "cpu")
    pair = read_pair(tmp_path / "fixed.mha", tmp_path / "moving.mha", predictor)
    outcome = register_to_folder(pair, predictor, tmp_path / "out", OPTIONS)
    field = sitk.ReadImage(str(outcome.files["field"]), sitk.sitkVectorFloat64)
    assert field.GetDimension() == 2
    fixed, moving = (sitk.ReadImage(str(tmp_path / name)) for name in ("fixed.mha", "moving.mha"))
    transform = sitk.DisplacementFieldTransform(field)
    default = float(sitk.GetArrayViewFromImage(moving).min())
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, default))
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(outcome.files["moved"])))
    assert (np.abs(found - expected) < 1e-3).mean() > 0.99
    away = [
        np.abs(image - sitk.GetArrayFromImage(fixed))[4:-4, 4:-4].mean()
        for image in (found, sitk.GetArrayFromImage(moving))
    ]
    assert away[0] < 0.5 * away[1]


def test_a_run_into_a_full_folder_replaces_what_it_writes_and_nothing_else(tmp_path: Path) -> None:
    fixed = save(tmp_path / "a.nii.gz", FIXED)
    predictor = Predictor([intensity_bundle(2.5)], "cpu")
    pair = read_pair(fixed, fixed, predictor)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    (out / "metrics.json").write_text("old", encoding="utf-8")
    register_to_folder(pair, predictor, out, RegisterOptions(iterations=0))
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["displacement_mm"] == {"mean": 0, "max": 0}
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "out"}


def test_wrong_files_end_in_one_line(tmp_path: Path) -> None:
    predictor = Predictor([intensity_bundle(2.5)], "cpu")
    fixed, moving = save(tmp_path / "a.nii.gz", FIXED), save(tmp_path / "b.nii.gz", MOVING)
    with pytest.raises(DataError, match=r"a_labels\.nii\.gz is not on the grid of b\.nii\.gz: shape"):
        read_pair(fixed, moving, predictor, None, save_labels(tmp_path / "a_labels.nii.gz", fixed))
    with pytest.raises(DataError, match=r"a\.nii\.gz does not contain labels"):
        read_pair(fixed, moving, predictor, fixed)
    with pytest.raises(DataError, match="no file"):
        read_pair(fixed, tmp_path / "c.nii.gz", predictor)
    save(tmp_path / "flat.nii.gz", grid_about_origin((20, 22, 1), (3, 3, 3)))
    with pytest.raises(DataError, match="single slice"):
        read_pair(fixed, tmp_path / "flat.nii.gz", predictor)
    with pytest.raises(UsageError, match="is a file"):
        register_to_folder(read_pair(fixed, moving, predictor), predictor, fixed, OPTIONS)
    scan = read_scan(save(tmp_path / "moved.nii.gz", FIXED))
    with pytest.raises(UsageError, match="would be replaced"):
        register_to_folder(Pair(scan, scan), predictor, tmp_path, OPTIONS)
    assert not (tmp_path / "metrics.json").exists()
