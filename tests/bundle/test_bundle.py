"""Bundles come back as they were saved, and a damaged, foreign or newer one is refused in one line."""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farvox.bundle import load_bundle, save_bundle
from farvox.bundle.manifest import ModelEntry
from farvox.errors import BundleError
from farvox.models import create_model
from tests.predict.networks import identity_bundle


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = identity_bundle({200: "a", 600: "b"}, (1, 1, 2))
    torch.manual_seed(0)
    network = create_model("unet3d", classes=3, widths=[4, 8])
    entry = ModelEntry(name="unet3d", in_channels=1, classes=3, options={"widths": [4, 8]})
    return save_bundle(tmp_path / "bundle", network, made.manifest.model_copy(update={"model": entry}), made.recipe)


def test_a_bundle_returns_whole(saved: Path) -> None:
    bundle = load_bundle(saved)
    torch.manual_seed(0)
    network = create_model("unet3d", classes=3, widths=[4, 8]).eval()
    image = torch.randn(1, 1, 9, 10, 11)
    assert torch.equal(bundle.network(image), network(image))
    assert bundle.manifest.label_table.values == (0, 200, 600)
    assert bundle.manifest.preparation.spacing == (1, 1, 2)
    assert {path.name for path in saved.iterdir()} == {"weights.safetensors", "manifest.json", "recipe.toml"}
    assert not [p for p in saved.parent.iterdir() if p.name.startswith(".")]


def test_saving_again_replaces_the_whole(saved: Path) -> None:
    bundle = load_bundle(saved)
    (saved / "stray").write_text("x")
    save_bundle(saved, bundle.network, bundle.manifest.model_copy(update={"fold": "3"}), bundle.recipe)
    assert load_bundle(saved).manifest.fold == "3"
    assert not (saved / "stray").exists()


def _change_manifest(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(content | changes))

    return change


def _swap_weights_for_a_pickle(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))
    _change_manifest(weights_sha256="")(folder)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights gone": (lambda f: (f / "weights.safetensors").unlink(), "lacks weights.safetensors"),
    "manifest gone": (lambda f: (f / "manifest.json").unlink(), "lacks manifest.json"),
    "recipe gone": (lambda f: (f / "recipe.toml").unlink(), "lacks recipe.toml"),
    "weights cut": (
        lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-100]),
        "not the file that was saved",
    ),
    "weights a pickle": (_swap_weights_for_a_pickle, "do not fit"),
    "manifest not JSON": (lambda f: (f / "manifest.json").write_text("{"), "damaged"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json"),
    "manifest binary": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "damaged"),
    "newer": (_change_manifest(version=99, made_with={"farvox": "7.1"}), "bundle format 99, made with farvox 7.1"),
    "unknown field": (_change_manifest(surprise=1), "surprise"),
    "unknown model": (
        _change_manifest(model={"name": "unet9d", "in_channels": 1, "classes": 3, "options": {}}),
        "unet9d",
    ),
    "other width": (
        _change_manifest(model={"name": "unet3d", "in_channels": 1, "classes": 3, "options": {"widths": [8, 8]}}),
        "do not fit",
    ),
    "recipe broken": (lambda f: (f / "recipe.toml").write_text("[train"), "recipe.toml is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(saved: Path, damage: str) -> None:
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
        "from farvox.bundle import load_bundle, save_bundle\n"
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
