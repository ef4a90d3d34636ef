"""`farvox locate`: a table of points, errors against references, and one line for bad scans and wrong calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from farvox.bundle import save_bundle
from farvox.cli.app import app
from farvox.errors import FarvoxError
from farvox.geometry import Grid
from farvox.io.landmarks import LandmarkRow, read_landmarks, write_landmarks
from tests.localization.networks import blobs, threshold_bundle
from tests.training.runs import farvox, make_dataset

GRID = Grid((40, 36, 32), np.array([[-2.0, 0, 0, 40], [0, 2.0, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1]]))
APEX, BASE = (
    GRID.voxel_to_mm((np.array(fraction) * GRID.shape)[None])[0] for fraction in ((0.3, 0.6, 0.4), (0.7, 0.4, 0.6))
)

SHIFTED_BASE = BASE + np.array((3, 0, 0))
"""A reference with an error of 3 mm."""


def locate(*arguments: object) -> dict[str, Any]:
    """The output of `farvox locate --json`, run in this process."""
    result = CliRunner().invoke(app, ["locate", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, two scans (the second without a base), masks and a table of their structures."""
    folder = tmp_path_factory.mktemp("locate")
    bundle = threshold_bundle((2.0, 2.0, 2.5))
    save_bundle(folder / "bundle", bundle.network, bundle.manifest, bundle.recipe)
    (folder / "masks").mkdir()
    for name, base in (("s1", BASE), ("s2", None)):
        scan = blobs(GRID, APEX, base)
        if base is None:
            scan[1] = 0.1 * scan[0]  # a constant channel would be refused
        nib.save(nib.Nifti1Image(np.moveaxis(scan, 0, -1), GRID.affine), folder / f"{name}.nii.gz")
        mask = (1 * (scan[0] > 0.5) + 2 * (scan[1] > 0.5)).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, GRID.affine), folder / "masks" / f"{name}.nii.gz")
    write_landmarks(
        folder / "known.csv",
        [LandmarkRow("s1", "apex", tuple(APEX)), LandmarkRow("s1", "base", tuple(SHIFTED_BASE))],
    )
    return folder


def test_points_are_written_and_compared_and_a_bad_scan_does_not_stop_the_others(folder: Path) -> None:
    (folder / "bad.nii.gz").write_text("hello", encoding="utf-8")
    scans = [folder / f"{name}.nii.gz" for name in ("bad", "s1", "s2")]
    options = ["--samples", "1200", "--reference", folder / "masks", "--out", folder / "out" / "points.csv"]
    done = farvox("locate", folder / "bundle", *scans, *options)
    assert done.returncode == 1
    assert done.stderr.count("error: case bad:") == 1
    assert "1 of 3 scans failed" in done.stderr
    assert "Traceback" not in done.stderr
    points = read_landmarks(folder / "out" / "points.csv").points
    assert points["s1"]["apex"] == pytest.approx(tuple(APEX), abs=0.7)
    assert points["s1"]["base"] == pytest.approx(tuple(BASE), abs=0.7)
    assert list(points["s2"]) == ["apex"]
    rows = (folder / "out" / "points.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "case,landmark,x,y,z,confidence,samples,sample_fraction"
    assert rows[4].startswith("s2,base,,,,0.000")
    assert "not found" in done.stdout
    assert "absent" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if not line.startswith("written"))


def test_json_contains_all_results(folder: Path) -> None:
    options = ["--exhaustive", "--reference", folder / "known.csv", "--out", folder / "exhaustive.csv"]
    document = locate(folder / "bundle", folder / "s1.nii.gz", *options)
    (scan,) = document["scans"]
    assert (scan["samples"], scan["voxels"], scan["sample_fraction"]) == (GRID.n_voxels, GRID.n_voxels, 1.0)
    apex, base = scan["landmarks"]
    assert apex["error_mm"] < 0.2
    assert base["error_mm"] == pytest.approx(3, abs=0.2)
    assert base["error_voxels"] == pytest.approx(1.5, abs=0.1)
    assert base["reference_mm"] == pytest.approx(list(SHIFTED_BASE), abs=1e-3)
    assert document["errors"]["landmarks"]["base"]["median_mm"] == base["error_mm"]
    assert document["errors"]["all"]["count"] == 2
    assert document["failed"] == 0


WRONG = {
    "out": (["--out", "points.txt"], 2, "the name of a .csv file"),
    "samples": (["--samples", "10"], 2, "300 or more"),
    "reference": (["--reference", "known.csv", "--out", "known.csv"], 2, "would replace the reference"),
    "names": (["--reference", "other.csv"], 1, "contains none of the bundle's labels (it contains tip)"),
    "cases": (["--reference", "elsewhere.csv"], 1, "has no reference for any scan"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_one_line_and_write_nothing(case: str, folder: Path, tmp_path: Path) -> None:
    options, code, message = WRONG[case]
    write_landmarks(folder / "other.csv", [LandmarkRow("s1", "tip", (1.0, 2.0, 3.0))])
    write_landmarks(folder / "elsewhere.csv", [LandmarkRow("s9", "apex", (1.0, 2.0, 3.0))])
    before = (folder / "known.csv").read_text(encoding="utf-8")
    options = [str(folder / o) if o.endswith(".csv") else o for o in options]
    out = [] if "--out" in options else ["--out", str(tmp_path / "points.csv")]
    result = CliRunner().invoke(app, ["locate", str(folder / "bundle"), str(folder / "s1.nii.gz"), *options, *out])
    assert isinstance(result.exception, FarvoxError)
    assert result.exception.exit_code == code
    assert message in str(result.exception)
    assert not (tmp_path / "points.csv").exists()
    assert (folder / "known.csv").read_text(encoding="utf-8") == before


def test_a_network_is_trained_on_landmarks_and_locates_them(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    rows = []
    for number in range(4):
        label = nib.load(data / "labelsTr" / f"case_{number}.nii.gz")
        for value, name in ((3, "bright"), (7, "dark")):
            centre = np.argwhere(np.asarray(label.dataobj) == value).mean(0)
            rows.append(LandmarkRow(f"case_{number}", name, tuple(label.affine[:3] @ [*centre, 1])))
    write_landmarks(tmp_path / "points.csv", rows)
    images = ["--images", data / "imagesTr" / "*.nii.gz", "--landmarks", tmp_path / "points.csv", "--radius", "6"]
    options = ["--set", "model.options={offsets=64, smoothing=[], stride=1}", "--set", "points.steps_per_epoch=40"]
    run = tmp_path / "run"
    done = farvox(
        "train",
        *images,
        "--recipe",
        "obelisk-dense",
        *options,
        *("--epochs", "1", "--folds", "2", "--fold", "0"),
        "--out",
        run,
    )
    assert done.returncode == 0, done.stderr
    split = json.loads((run / "fold-0" / "split.json").read_text(encoding="utf-8"))
    assert split["landmark_radius_mm"] == 6
    metrics = json.loads((run / "fold-0" / "metrics.json").read_text(encoding="utf-8"))
    for case in metrics["cases"]:
        assert Path(case["reference"]).parent == run / "fold-0" / "references"
        for figures in case["labels"].values():
            assert figures["reference_ml"] == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.15)
    scans = [data / "imagesTr" / f"{case}.nii.gz" for case in split["validation_cases"]]
    options = ["--out", tmp_path / "out.csv", "--reference", tmp_path / "points.csv", "--min-confidence", "0"]
    document = locate(run / "fold-0" / "bundle", *scans, *options)
    assert document["errors"]["all"]["median_voxels"] < 3
