"""`farvox register`: results, one JSON document, and one line and the right exit code for errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from farvox import create_model
from farvox.bundle import save_bundle
from farvox.cli import main
from farvox.recipes import load_recipe
from tests.registration.made import grid_about_origin, intensity_bundle, scan_on, wave


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, labels of both, and a bundle with random weights."""
    folder = tmp_path_factory.mktemp("registration")
    grid = grid_about_origin((16, 18, 14), (4.0, 3.5, 4.0))
    for name, displace in (("fixed", wave), ("moving", None)):
        image = scan_on(grid, displace).image[0]
        nib.save(nib.Nifti1Image(image, grid.affine), folder / f"{name}.nii.gz")
        labels = np.where(image > 0.8, 1, np.where(image < -0.8, 5, 0)).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, grid.affine), folder / f"{name}_labels.nii.gz")
    near = grid.affine.copy()
    near[0, 3] += 50
    nib.save(nib.Nifti1Image(image, near), folder / "near.nii.gz")
    far = grid.affine.copy()
    far[0, 3] += 500
    nib.save(nib.Nifti1Image(image, far), folder / "far.nii.gz")
    nib.save(nib.Nifti1Image(image[..., :1], grid.affine), folder / "slice.nii.gz")
    nib.save(nib.Nifti1Image(np.stack((image, image), -1), grid.affine), folder / "two.nii.gz")
    torch.manual_seed(0)
    manifest = intensity_bundle(4.0).manifest
    model = manifest.model.model_copy(update={"options": {"widths": [8, 8]}})
    network = create_model("unet3d", 1, 2, widths=[8, 8])
    save_bundle(folder / "bundle", network, manifest.model_copy(update={"model": model}), load_recipe("default"))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of the program in this process."""
    monkeypatch.setattr(sys, "argv", ["farvox", "register", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_results_and_metrics(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "fixed.nii.gz", folder / "moving.nii.gz", "--bundle", folder / "bundle", "--iterations", "12")
    labels = ("--fixed-labels", folder / "fixed_labels.nii.gz", "--moving-labels", folder / "moving_labels.nii.gz")
    assert run(monkeypatch, *arguments, *labels, "--out", tmp_path / "a", "--features", "penultimate", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "field.mha",
        "figure.png",
        "labels.nii.gz",
        "metrics.json",
        "moved.nii.gz",
    ]
    assert document["files"]["field"] == str(tmp_path / "a" / "field.mha")
    assert [row["name"] for row in document["dice"]] == ["blob", "5"]
    assert all(row["after"] > row["before"] for row in document["dice"])
    assert json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))["dice"] == document["dice"]

    assert run(monkeypatch, *arguments, *labels, "--out", tmp_path / "b", "--features", "penultimate") == 0
    output = capsys.readouterr()
    assert "blob" in output.out
    assert "% of voxels folded" in output.out
    assert output.err == ""
    # The result is reproducible.
    first, second = ((tmp_path / out / "field.mha").read_bytes() for out in "ab")
    assert first == second


WRONG: dict[str, tuple[list[str], int, str]] = {
    "elsewhere": (["fixed.nii.gz", "far.nii.gz"], 1, "do not overlap: the distance between their centres is 500 mm"),
    "slice": (["fixed.nii.gz", "slice.nii.gz"], 1, "slice.nii.gz is a single slice"),
    "channels": (["two.nii.gz", "fixed.nii.gz"], 1, "case two.nii.gz: the image has 2 channels; expected: 1 (MR)"),
    "labels": (["fixed.nii.gz", "moving.nii.gz", "--moving-labels", "far.nii.gz"], 1, "is not on the grid"),
    "no scan": (["fixed.nii.gz", "none.nii.gz"], 1, "no file"),
    "no bundle": (["fixed.nii.gz", "moving.nii.gz", "--bundle", "none"], 1, "no bundle folder"),
    "features": (["fixed.nii.gz", "moving.nii.gz", "--features", "deep"], 2, "penultimate, probabilities, both"),
    "init": (["fixed.nii.gz", "moving.nii.gz", "--init", "middle"], 2, "header, centers, search"),
    "iterations": (["fixed.nii.gz", "moving.nii.gz", "--iterations", "-3"], 2, "0 or more"),
}


def test_scans_that_hardly_overlap_are_noted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "fixed.nii.gz", folder / "near.nii.gz", "--bundle", folder / "bundle", "--iterations", "0")
    assert run(monkeypatch, *arguments, "--out", tmp_path / "a") == 0
    # 64 mm wide and 50 mm apart: 2 of the 9 positions along this axis are inside.
    assert "note: only 22 % of the fixed scan is inside the moving scan" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--out", tmp_path / "b", "--init", "centers") == 0
    assert "note" not in capsys.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_ends_in_one_line_and_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words, code, message = WRONG[name]
    monkeypatch.chdir(folder)
    bundle = () if "--bundle" in words else ("--bundle", "bundle")
    assert run(monkeypatch, *words, *bundle, "--out", tmp_path / "out") == code
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith("error: ")
    assert len(output.err.strip().splitlines()) == 1
    assert output.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_features_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from farvox.models.unet3d import UNet3d

    plain = UNet3d.__init__

    def headless(self: UNet3d, *arguments: object) -> None:
        plain(self, *arguments)  # type: ignore[arg-type]
        self.last, self.head = self.head, torch.nn.Identity()

    torch.manual_seed(0)
    bundle = intensity_bundle(4.0)
    monkeypatch.setattr(UNet3d, "__init__", headless)
    model = bundle.manifest.model.model_copy(update={"options": {"widths": [4]}})
    save_bundle(
        tmp_path / "bundle",
        create_model("unet3d", 1, 2, widths=[4]),
        bundle.manifest.model_copy(update={"model": model}),
        bundle.recipe,
    )
    scan = folder / "fixed.nii.gz"
    assert run(monkeypatch, scan, scan, "--bundle", tmp_path / "bundle", "--out", tmp_path / "out") == 2
    assert "UNet3d has no last convolution" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
