"""The table of networks: quick to list, and helpful when a name or option is wrong."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch

from farvox._plugins import Registry
from farvox.errors import ModelError
from farvox.models import (
    ModelInfo,
    PointNetwork,
    check_network,
    create_model,
    create_on_meta,
    list_models,
    model_info,
    plan_options,
    register_model,
)
from farvox.models.__main__ import index
from farvox.models.registry import _REGISTRY


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, farvox; names = farvox.list_models(); from farvox.models import model_info;"
        "[model_info(name) for name in names]; sys.exit('torch' in sys.modules or 'unet3d' not in names)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_sorted_and_every_fact_is_stated() -> None:
    assert list_models() == sorted(list_models())
    for name in list_models():
        facts = model_info(name)
        assert facts.paper
        assert facts.input_requirements
        assert facts.licence == "Apache-2.0"
        assert facts.dims in (2, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unet3", {}, r"no network is called 'unet3'.*did you mean 'unet3d'\?"),
        (["unet3d"], {}, r"no network is called '\['unet3d'\]'"),
        ("unet3d", {"width": [8]}, r"'unet3d' has no option 'width'.*did you mean 'widths'\?"),
        ("unet2d", {"widths": [8]}, r"'unet2d' has no option 'widths'.*leave it out"),
        ("unet3d", {"classes": 1}, "classes=1 for 'unet3d'; expected: a whole number of at least 2"),
        ("unet3d", {"in_channels": 0}, "in_channels=0 for 'unet3d'"),
        ("unet3d", {"classes": 2.5}, "classes=2.5"),
    ],
)
def test_wrong_requests(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **arguments)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[ModelInfo]:
    """The registry of networks, as it was after the test."""
    monkeypatch.setattr(_REGISTRY, "items", dict(_REGISTRY.items))
    return _REGISTRY


class Own(torch.nn.Module):
    """As many outputs as it is told, which can differ from the number of classes."""

    def __init__(self, in_channels: int, classes: int, extra: int = 0) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(in_channels, classes + extra, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def build_own(in_channels: int, classes: int, extra: int = 0) -> Own:
    return Own(in_channels, classes, extra)


def test_the_index_is_what_the_decorators_say() -> None:
    assert index() == Path(index.__code__.co_filename).with_name("index.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list_models())
def test_networks_have_the_properties_that_are_listed(name: str) -> None:
    network = create_on_meta(name, {})
    assert isinstance(network, PointNetwork) == model_info(name).points
    assert getattr(network, "size_dependent", False) == name.startswith("obelisk")
    assert hasattr(network, "set_training_progress") == (name == "vfn")


@pytest.mark.usefixtures("registry")
def test_own_networks_are_created_by_their_name() -> None:
    register_model("own", paper="ours", note="a test", points=False)(build_own)
    register_model("own-class")(Own)
    assert {"own", "own-class", "unet3d"} <= set(list_models())
    assert (model_info("own").paper, model_info("own").builder) == ("ours", f"{__name__}:build_own")
    assert create_model("own", 2, 3, extra=1).conv.weight.shape == (4, 2, 3, 3, 3)
    assert isinstance(create_model("own-class", 1, 2), Own)
    assert plan_options("own", {"extra": 2}, (1, 1, 3)) == {"extra": 2}
    with pytest.raises(ModelError, match="'own' has no option 'extr'; hint: did you mean 'extra'"):
        create_model("own", extr=1)
    register_model("own")(build_own)  # a notebook cell is run again
    with pytest.raises(ModelError, match="a network named 'own' is registered already"):
        register_model("own")(lambda in_channels, classes: Own(in_channels, classes))
    with pytest.raises(ModelError, match="a network named 'unet3d' is registered already"):
        register_model("unet3d")(build_own)


@pytest.mark.usefixtures("registry")
def test_builders_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_nets.py").write_text(
        "import torch\n"
        "def build(in_channels, classes, *, width=1):\n"
        "    return torch.nn.Conv3d(in_channels, classes, width)\n"
        "def other(channels):\n"
        "    return None\n"
        "number = 1\n",
        encoding="utf-8",
    )
    (tmp_path / "their_broken.py").write_text("raise RuntimeError('no\\nsuch GPU')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert create_model("their_nets:build", 1, 3, width=1).out_channels == 3
    assert model_info("their_nets:build").builder == "their_nets:build"
    for path, words in (
        ("their_nets:building", "the network 'their_nets:building' cannot be imported: AttributeError"),
        ("their_broken:build", "'their_broken:build' cannot be imported: RuntimeError: no such GPU"),
        ("nowhere.at:all", "'nowhere.at:all' cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("their_nets:number", "'their_nets:number' is not a function"),
        ("their_nets:other", "the builder of 'their_nets:other'.*expected: build\\(in_channels, classes"),
    ):
        with pytest.raises(ModelError, match=words) as error:
            create_model(path)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("registry")
def test_networks_of_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_nets.py").write_text(
        "import torch\n"
        "from farvox.models import register_model\n"
        "@register_model('decorated', paper='theirs')\n"
        "def build(in_channels, classes):\n"
        "    return torch.nn.Conv3d(in_channels, classes, 1)\n"
        "def plain(in_channels, classes):\n"
        "    return torch.nn.Conv3d(in_channels, classes, 3, padding=1)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    offers = [("decorated", "plugged_nets:build"), ("plain", "plugged_nets:plain"), ("broken", "plugged_not:build")]
    offers += [("twice", "plugged_nets:build"), ("twice", "plugged_nets:plain")]
    points = EntryPoints(EntryPoint(name, value, "farvox.models") for name, value in offers)
    monkeypatch.setattr("farvox._plugins.entry_points", lambda **which: points.select(**which))
    assert {"decorated", "plain", "broken", "unet3d"} <= set(list_models())
    assert "plugged_nets" not in sys.modules
    assert create_model("plain").kernel_size == (3, 3, 3)
    assert create_model("decorated").kernel_size == (1, 1, 1)
    assert (model_info("decorated").paper, model_info("plain").paper) == ("theirs", "")
    assert model_info("plain").builder == "plugged_nets:plain"
    with pytest.raises(ModelError, match="'plugged_not:build' cannot be imported: ModuleNotFoundError"):
        create_model("broken")
    with pytest.raises(ModelError, match="several packages provide a network named 'twice'"):
        create_model("twice")


def test_a_wrong_output_is_found_by_a_dry_run() -> None:
    check_network(create_model("unet2d", 1, 3), 1, 3)
    network = Own(1, 3).train()
    check_network(network, 1, 3)
    assert network.training
    for extra, channels, words in (
        (1, 1, r"Own returns \(1, 4, 16, 16, 16\) for an image \(1, 1, 16, 16, 16\); expected: logits \(1, 3, 16"),
        (0, 2, r"Own fails on an image \(1, 2, 16, 16, 16\): RuntimeError: .*; hint: "),
    ):
        with pytest.raises(ModelError, match=words) as error:
            check_network(Own(1, 3, extra), channels, 3)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="Identity returns"):
        check_network(torch.nn.Identity(), 1, 3)


def test_strides_of_the_unet_follow_the_spacing() -> None:
    planned = plan_options("unet3d", {"widths": (4, 8, 16)}, (1.0, 1.0, 3.0))
    assert planned == {
        "widths": (4, 8, 16),
        "strides": ((2, 2, 1), (2, 2, 2)),
        "kernels": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
    }
    assert plan_options("unet3d", {}, (1, 1, 1))["widths"] == (16, 32, 64, 128)
    assert plan_options("unet3d", {"strides": ((1, 1, 1),)}, (1, 1, 1))["strides"] == ((1, 1, 1),)
