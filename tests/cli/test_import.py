"""`farvox import-obelisk` as it is typed: a bundle that can be used, or one line and no file."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.conftest import real_data
from tests.training.runs import farvox


class _Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.long
def test_published_weights_segment_a_scan_on_its_own_grid(tmp_path: Path) -> None:
    weights = real_data("obelisk_original_weights") / "obeliskhybrid_tcia_fold1.pth"
    done = farvox("import-obelisk", weights, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "229,217 parameters" in done.stdout
    assert "6 liver" in done.stdout
    assert "note: crop scans" in done.stdout
    scan = real_data("single_scans") / "msd_spleen_2_crop" / "image.nii.gz"
    done = farvox("predict", tmp_path / "bundle", scan, "--out", tmp_path / "masks", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["masks"][0]["volumes_ml"]) >= {"spleen", "liver", "pancreas"}
    image, mask = nib.load(scan), nib.load(tmp_path / "masks" / "image.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert set(np.unique(mask.dataobj)) <= set(range(9))


def test_json_describes_the_bundle(tmp_path: Path) -> None:
    weights = real_data("obelisk_original_weights") / "obeliskhybrid_visceral_fold1.pth"
    document = json.loads(farvox("import-obelisk", weights, "--out", tmp_path / "bundle", "--json").stdout)
    assert document["model"]["options"] == {"variant": "visceral", "compat": "published"}
    assert document["preprocessing"]["spacing"] == [3, 3, 3]
    assert [label["name"] for label in document["labels"]][:3] == ["background", "liver", "spleen"]


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": _Evil(trace)}))
    else:
        torch.save({"a": _Evil(trace)}, path, _use_new_zipfile_serialization=kind == "zip")
    done = farvox("import-obelisk", path, "--out", tmp_path / "bundle")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path} is ")
    assert "not run" if kind != "pickle" else "no code in it was run" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["weights.pth"]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    done = farvox("import-obelisk", tmp_path / "nowhere.pth", "--out", tmp_path / "bundle")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "no checkpoint file" in done.stderr
