"""The main job by the real program: check, train, predict, evaluate, from one dataset folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from farvox.models import create_model, list_models
from tests.conftest import real_data
from tests.training.runs import QUICK, farvox, make_dataset

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes", cases=5)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    done = farvox("train", dataset, "--out", out, "--folds", "2", "--epochs", "40", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["folds"]) == {"0", "1"}
    assert summary["summary"]["foreground"]["dice"]["cases"] == 5
    return out


def test_check_tells_what_it_found(dataset: Path) -> None:
    done = farvox("check", dataset)
    assert done.returncode == 0
    assert "all 5 cases are fine" in done.stdout
    assert "20×18×16" in done.stdout
    assert "LAS" in done.stdout
    report = json.loads(farvox("check", dataset, "--json").stdout)
    assert report["labels"] == {"0": "background", "3": "bright", "7": "dark"}
    assert [case["spacing"] for case in report["cases"]] == [[1.5, 1.5, 2.0]] * 5


def test_predictions_of_the_run_and_of_predict_are_the_same(dataset: Path, run: Path, tmp_path: Path) -> None:
    fold = run / "fold-0"
    unseen = json.loads((fold / "split.json").read_text(encoding="utf-8"))["validation_cases"]
    scans = [dataset / "imagesTr" / f"{case}.nii.gz" for case in unseen]
    done = farvox("predict", fold / "bundle", *scans, "--out", tmp_path / "masks", "--json")
    assert done.returncode == 0, done.stderr
    assert {Path(entry["mask"]).name for entry in json.loads(done.stdout)["masks"]} == {scan.name for scan in scans}
    for scan in scans:
        mask = nib.load(tmp_path / "masks" / scan.name)
        kept = nib.load(fold / "predictions" / scan.name)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(kept.dataobj))
        assert set(np.unique(mask.dataobj)) <= {0, 3, 7}
        np.testing.assert_array_equal(mask.affine, nib.load(scan).affine)
    done = farvox("evaluate", tmp_path / "masks", dataset / "labelsTr", "--out", tmp_path / "metrics.json", "--json")
    assert done.returncode == 0, done.stderr
    document, stored = json.loads(done.stdout), json.loads((fold / "metrics.json").read_text(encoding="utf-8"))
    assert document["summary"]["labels"] == stored["summary"]["labels"]
    assert [entry["name"] for entry in document["labels"]] == ["bright", "dark"]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * len(scans)
    assert float(rows[0]["dice"]) == pytest.approx(document["cases"][0]["labels"]["3"]["dice"])


def test_two_bundles_vote(dataset: Path, run: Path, tmp_path: Path) -> None:
    scan = dataset / "imagesTr" / "case_0.nii.gz"
    done = farvox("predict", run / "fold-0" / "bundle", run / "fold-1" / "bundle", scan, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "case_0.nii.gz" in done.stdout
    label = np.asarray(nib.load(dataset / "labelsTr" / "case_0.nii.gz").dataobj)
    mask = np.asarray(nib.load(tmp_path / "case_0.nii.gz").dataobj)
    assert (mask == label).mean() > 0.9


def test_a_wrong_scan_among_good_ones_fails_alone(dataset: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    scan = dataset / "imagesTr" / "case_0.nii.gz"
    done = farvox("predict", run / "fold-0" / "bundle", tmp_path / "broken.nii.gz", scan, "--out", tmp_path / "masks")
    assert done.returncode == 1
    assert "case broken" in done.stderr
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["case_0.nii.gz"]


def test_a_dicom_series_gets_a_mask_on_its_grid(run: Path, tmp_path: Path) -> None:
    series = real_data("dicom_sample") / "HippoCrop"
    done = farvox("predict", run / "fold-0" / "bundle", series, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert nib.load(tmp_path / "HippoCrop.nii.gz").shape == (35, 51, 32)


def test_the_list_of_networks_states_true_parameter_counts() -> None:
    listed = json.loads(farvox("models", "--json").stdout)
    assert set(listed) == set(list_models())
    for name, facts in listed.items():
        network = create_model(name, **facts["reference_arguments"])
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == facts["parameters"]


def test_info_names_versions() -> None:
    facts = json.loads(farvox("info", "--system", "--json").stdout)
    assert facts["torch"].startswith("2.")
    assert facts["precision"] in ("float32", "bfloat16")
    assert farvox("--version").stdout.startswith("farvox 0.")
