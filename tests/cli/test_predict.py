"""`farvox predict` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from farvox import create_model
from farvox.bundle import ModelEntry, save_bundle
from farvox.prediction import Predictor
from tests.prediction.networks import identity_bundle
from tests.prediction.test_points import bundle, noise
from tests.training.runs import farvox


def test_a_point_network_is_evaluated_from_coarse_to_fine(tmp_path: Path) -> None:
    made = bundle(np.eye(4))
    model = ModelEntry(
        name="obelisk-dense", in_channels=1, classes=4, options={"offsets": 24, "smoothing": [3], "stride": 1}
    )
    save_bundle(tmp_path / "bundle", made.network, made.manifest.model_copy(update={"model": model}), made.recipe)
    nib.save(nib.Nifti1Image(noise(12, 13, 14), np.eye(4)), tmp_path / "scan.nii.gz")
    arguments = ("predict", tmp_path / "bundle", tmp_path / "scan.nii.gz", "--out", tmp_path / "out", "--point-stride")
    done = farvox(*arguments, "adaptive", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["masks"]
    assert result["error"] is None
    assert 0.5 < result["n_evaluated_fraction"] < 1.5
    mask = np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj)
    assert (mask == Predictor([made], "cpu").segment(noise(12, 13, 14), np.eye(4))).mean() > 0.95
    done = farvox(*arguments, "3")
    assert done.returncode == 2
    assert "point stride '3'; expected: native, adaptive, 1, 2, 4" in " ".join(done.stderr.split())


def test_notes_and_errors_of_scans_are_printed_and_a_run_is_loaded_as_a_whole(tmp_path: Path) -> None:
    made = identity_bundle({200: "a"}, (1, 1, 1))
    model = ModelEntry(name="unet3d", in_channels=1, classes=2, options={"widths": [4, 8]})
    manifest = made.manifest.model_copy(update={"model": model})
    for fold in range(2):
        network = create_model("unet3d", classes=2, widths=[4, 8])
        save_bundle(tmp_path / "run" / f"fold-{fold}" / "bundle", network, manifest, made.recipe)
    image = nib.Nifti1Image(noise(9, 8, 7), None)
    image.set_sform(np.diag([1.0, 1, 1, 1]), 1)
    shifted = np.eye(4)
    shifted[:3, 3] = 5
    image.set_qform(shifted, 1)
    nib.save(image, tmp_path / "odd.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "flat.nii.gz")
    scans = (tmp_path / "odd.nii.gz", tmp_path / "flat.nii.gz")
    done = farvox("predict", tmp_path / "run", *scans, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["failed"] == 1
    odd, flat = document["masks"]
    assert "qform and sform of the header disagree" in odd["notes"][0]
    assert f"note: case odd: {odd['notes'][0]}" in done.stderr
    assert flat["error"].startswith("case flat: the image is constant: every voxel is 1")
    assert f"error: {flat['error']}" in done.stderr
    assert flat["mask"] is None
    expected = Predictor.load(tmp_path / "run", device="cpu").segment(tmp_path / "odd.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(odd["mask"]).dataobj), expected)
