"""`farvox predict` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from farvox.bundle import ModelEntry, save_bundle
from farvox.prediction import Predictor
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
