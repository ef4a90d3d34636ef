"""Bundles are loaded as they were saved; damaged, foreign or newer ones are refused with one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from farvox import Predictor
from farvox.bundle import Inference, load_bundle, save_bundle
from farvox.bundle.manifest import ModelEntry
from farvox.bundle.save_load import _exchange, _hint, add_metrics
from farvox.errors import BundleError, ResourceError
from farvox.models import create_model
from tests.prediction.networks import identity_bundle


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = identity_bundle({200: "a", 600: "b"}, (1, 1, 2))
    torch.manual_seed(0)
    network = create_model("unet3d", classes=3, widths=[4, 8])
    entry = ModelEntry(name="unet3d", in_channels=1, classes=3, options={"widths": [4, 8]})
    return save_bundle(tmp_path / "bundle", network, made.manifest.model_copy(update={"model": entry}), made.recipe)


def test_a_bundle_is_loaded_as_it_was_saved(saved: Path) -> None:
    bundle = load_bundle(saved)
    torch.manual_seed(0)
    network = create_model("unet3d", classes=3, widths=[4, 8]).eval()
    image = torch.randn(1, 1, 9, 10, 11)
    assert torch.equal(bundle.network(image), network(image))
    assert bundle.manifest.label_table.values == (0, 200, 600)
    assert bundle.manifest.preprocessing.spacing == (1, 1, 2)
    assert {path.name for path in saved.iterdir()} == {
        *("weights.safetensors", "manifest.json", "recipe.toml", "README.md"),
    }
    assert not [p for p in saved.parent.iterdir() if p.name.startswith(".")]


def test_the_model_card_describes_the_bundle(saved: Path) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# unet3d: a, b\n")
    assert "| Labels | 200 a, 600 b |" in card
    assert "| Resampled to | 1×1×2 mm, axes RAS |" in card
    assert "Validation" not in card
    add_metrics(saved, {"labels": {"200": {"dice": {"mean": 0.9123, "sd": 0.05, "cases": 7}}}})
    assert "| a | 0.912 ± 0.050 | 7 |" in (saved / "README.md").read_text(encoding="utf-8")
    assert load_bundle(saved).manifest.metrics == {
        "labels": {"200": {"dice": {"mean": 0.9123, "sd": 0.05, "cases": 7}}}
    }


def test_code_of_own_networks_runs_only_with_trust(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "import farvox\n\ndef build(in_channels, classes, **options):\n"
    module += "    return farvox.create_model('unet3d', in_channels, classes, **options)\n"
    (tmp_path / "own_network.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    model = {"name": "own_network:build", "in_channels": 1, "classes": 3, "options": {"widths": [4, 8]}}
    _change_manifest(model=model)(saved)
    with pytest.raises(BundleError, match=r"own network 'own_network:build'.*hint: if you trust.*--trust-code"):
        Predictor.load(saved, device="cpu")
    assert "own_network" not in sys.modules
    predictor = Predictor.load(saved, device="cpu", trust_code=True)
    assert predictor.bundles[0].manifest.model.name == "own_network:build"
    monkeypatch.delitem(sys.modules, "own_network")


def test_saving_again_replaces_the_bundle(saved: Path) -> None:
    bundle = load_bundle(saved)
    (saved / "stray").write_text("x", encoding="utf-8")
    save_bundle(saved, bundle.network, bundle.manifest.model_copy(update={"fold": "3"}), bundle.recipe)
    assert load_bundle(saved).manifest.fold == "3"
    assert not (saved / "stray").exists()


def _change_manifest(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(content | changes), encoding="utf-8")

    return change


def _swap_weights_for_a_pickle(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))
    _change_manifest(weights_sha256="")(folder)


def _from_the_future(folder: Path) -> None:
    _change_manifest(version=99, versions=["8.0"])(folder)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "\n[unheard_of]\nx = 1\n", encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "has no weights.safetensors"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
    "no recipe": (lambda f: (f / "recipe.toml").unlink(), "has no recipe.toml"),
    "weights cut": (
        lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-100]),
        "has changed since it was saved",
    ),
    "weights a pickle": (_swap_weights_for_a_pickle, "do not match"),
    "manifest not JSON": (lambda f: (f / "manifest.json").write_text("{", encoding="utf-8"), "damaged"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[]", encoding="utf-8"), "manifest.json"),
    "manifest binary": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "damaged"),
    "newer": (_change_manifest(version=99, versions={"farvox": "7.1"}), "bundle format 99, written by farvox 7.1"),
    "newer, with other keys": (_from_the_future, "bundle format 99, written by a newer release"),
    "version 0": (_change_manifest(version=0), "version"),
    "unknown field": (_change_manifest(surprise=1), "surprise"),
    "unknown model": (
        _change_manifest(model={"name": "unet9d", "in_channels": 1, "classes": 3, "options": {}}),
        "unet9d",
    ),
    "other width": (
        _change_manifest(model={"name": "unet3d", "in_channels": 1, "classes": 3, "options": {"widths": [8, 8]}}),
        "do not match",
    ),
    "recipe broken": (lambda f: (f / "recipe.toml").write_text("[train", encoding="utf-8"), "recipe.toml is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_reported(saved: Path, damage: str) -> None:
    change, word = DAMAGES[damage]
    change(saved)
    with pytest.raises(BundleError) as error:
        load_bundle(saved)
    assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_a_run_folder_in_place_of_a_bundle_names_the_bundle_inside(saved: Path) -> None:
    with pytest.raises(BundleError, match=f"did you mean {saved}"):
        load_bundle(saved.parent)
    with pytest.raises(BundleError, match="no bundle folder"):
        load_bundle(saved.parent / "nowhere")


def test_a_full_disk_keeps_the_old_bundle(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from farvox.bundle import Inference, load_bundle, save_bundle\n"
        f"bundle = load_bundle({str(saved)!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"save_bundle(Path({str(saved)!r}), bundle.network, bundle.manifest, bundle.recipe)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ResourceError" in done.stderr
    assert "cannot write bundle" in done.stderr
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_failed_exchange_restores_the_old_bundle(saved: Path) -> None:
    """The old bundle has been moved away when the new one turns out to be missing."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(FileNotFoundError):
        _exchange(saved, saved.parent / "nowhere", saved.parent / "old")
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("failures", [1, 2])
def test_no_failure_loses_the_old_bundle(saved: Path, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """The disk fails between the two renames, and the second time also when the old bundle is to be moved back."""
    bundle = load_bundle(saved)
    rename, calls = Path.replace, []

    def fails_after_the_first(self: Path, target: Path) -> Path:
        calls.append(target)
        if 1 < len(calls) <= 1 + failures:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fails_after_the_first)
    with pytest.raises(ResourceError, match="Input/output error") as error:
        save_bundle(saved, bundle.network, bundle.manifest.model_copy(update={"fold": "3"}), bundle.recipe)
    (left,) = saved.parent.iterdir()
    if failures == 1:
        assert left == saved
    else:
        assert f"the previous one is in {left / 'old'}" in str(error.value)
        left = left / "old"
    assert load_bundle(left).manifest == bundle.manifest


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OSError(errno.ENOSPC, ""), "free disk space"),
        (OSError(errno.EDQUOT, ""), "free disk space"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk space"),
        (OSError(errno.EBUSY, ""), "mount point"),
        (OSError(errno.EACCES, ""), "may write to"),
        (OSError(errno.EIO, ""), "another folder"),
        (SafetensorError("something else"), "another folder"),
    ],
)
def test_the_hint_matches_the_failure(error: Exception, word: str) -> None:
    assert word in _hint(error)
    assert ("disk space" in _hint(error)) == ("disk space" in word)


def test_a_file_in_the_place_of_the_bundle_is_left_alone(saved: Path) -> None:
    bundle = load_bundle(saved)
    place = saved.parent / "thesis"
    place.write_text("x", encoding="utf-8")
    for folder in (place, place / "bundle"):
        with pytest.raises(ResourceError, match="cannot write bundle"):
            save_bundle(folder, bundle.network, bundle.manifest, bundle.recipe)
    assert place.read_text(encoding="utf-8") == "x"


def test_a_link_to_a_bundle_stays_a_link(saved: Path) -> None:
    bundle = load_bundle(saved)
    link = saved.parent / "latest"
    link.symlink_to("bundle")
    assert save_bundle(link, bundle.network, bundle.manifest.model_copy(update={"fold": "3"}), bundle.recipe) == link
    assert link.is_symlink()
    assert load_bundle(saved).manifest.fold == "3"


def test_a_bundle_of_version_1_predicts_as_it_did(tmp_path: Path) -> None:
    """The first format: no shape, axes, pooling or note, and a recipe with fewer settings."""
    folder = save_bundle_of_version_1(tmp_path / "old")
    manifest = load_bundle(folder).manifest
    assert manifest.version == 3
    assert manifest.preprocessing.axes == "RAS"
    assert manifest.preprocessing.intensity[0].kind == "dataset"
    assert manifest.inference == Inference(precision="float32")
    assert manifest.training == {"stop_reason": "budget", "epoch": 3, "step": 12}
    assert manifest.versions["torch"] == "2.13.0"
    torch.manual_seed(0)
    network = create_model("unet3d", classes=3, widths=[4, 8]).eval()
    scan = np.random.default_rng(0).normal(100, 60, (12, 10, 8)).astype(np.float32)
    # The scan's axes are left, posterior, superior; then clipped to 0...300, minus 100, divided by 50.
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    image = (np.clip(scan[::-1, ::-1], 0, 300) - 100) / 50
    with torch.no_grad():
        classes = network(torch.from_numpy(image[None, None].copy()))[0].argmax(0).numpy()
    expected = np.array([0, 4, 9])[classes][::-1, ::-1]
    assert len(np.unique(expected)) == 3
    found = Predictor.load(folder, device="cpu").segment(scan, affine)
    # At a tie of two scores, the last bit may decide otherwise.
    assert (found == expected).mean() > 0.998


def test_a_bundle_of_version_2_has_its_inference_values_in_the_recipe(saved: Path) -> None:
    expected = load_bundle(saved).manifest
    content = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    preparation = content.pop("preprocessing")
    preparation["pooled"] = preparation.pop("antialias_pooling")
    preparation["intensity"][0]["kind"] = "per-scan"
    content |= {"preparation": preparation, "made_with": content.pop("versions"), "version": 2, "window": [16, 16, 8]}
    content["training"] = {"reason": "epochs"}
    del content["inference"]
    (saved / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    recipe = '[patch]\nz_score = true\nblend = "mean"\n[train]\nprecision = "bfloat16"\n'
    (saved / "recipe.toml").write_text('name = "old"\n' + recipe, encoding="utf-8")
    manifest = load_bundle(saved).manifest
    assert manifest.inference == Inference(
        patch_size=(16, 16, 8), blend="mean", patch_normalization=True, precision="bfloat16"
    )
    assert manifest.preprocessing.intensity[0].kind == "percentile"
    assert manifest.preprocessing.antialias_pooling is False
    assert manifest.training == {"stop_reason": "epochs"}
    assert (manifest.version, manifest.versions) == (3, expected.versions)


def save_bundle_of_version_1(folder: Path) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    save_file(create_model("unet3d", classes=3, widths=[4, 8]).state_dict(), folder / "weights.safetensors")
    manifest = {
        "format": "farvox-bundle",
        "version": 1,
        "model": {"name": "unet3d", "in_channels": 1, "classes": 3, "options": {"widths": [4, 8]}},
        "parameters": 8_000,
        "preparation": {
            "spacing": [1.0, 1.0, 2.0],
            "channels": ["CT"],
            "intensity": [{"kind": "fixed", "low": 0.0, "high": 300.0, "mean": 100.0, "sd": 50.0}],
        },
        "window": None,
        "labels": [{"value": 0, "name": "background"}, {"value": 4, "name": "a"}, {"value": 9, "name": "b"}],
        "ignore": None,
        "dataset": "Boxes",
        "licence": "",
        "fold": "0",
        "training": {"reason": "budget", "epoch": 3, "step": 12},
        "metrics": None,
        "made_with": {"farvox": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "weights_sha256": hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (folder / "recipe.toml").write_text(
        """name = "default"
description = "A small 3D U-Net that fits itself to the scans: the first thing to try."
source = ""

[grid]
spacing = [1.0, 1.0, 2.0]
max_voxels = 1000000

[intensity]
kind = "fixed"

[model]
name = "unet3d"

[model.options]
widths = [4, 8]

[patch]
size = "whole"
max_voxels = 200000
centre = "classes"

[augment]
affine = 0.1
flip = []
contrast = 0.15
brightness = 0.15
gamma = 0.15
noise = 0.1

[loss]
terms = ["cross_entropy", "dice"]
class_weights = true

[train]
budget = "8m"
epochs = 0
batch = 1
learning_rate = 0.002
weight_decay = 0.0001
schedule = "cosine"
warmup = 0.03
clip_gradient = 1.0
seed = 0
precision = "float32"
checkpoint_seconds = 20.0
""",
        encoding="utf-8",
    )
    return folder
