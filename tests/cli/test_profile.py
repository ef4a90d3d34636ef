"""`farvox profile` and `farvox models` as a person would type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farvox import list_models
from farvox.bundle import load_bundle, save_bundle
from farvox.bundle.manifest import ModelEntry
from farvox.cli.app import app
from farvox.errors import FarvoxError, ResourceError
from farvox.models import create_model, model_info
from tests.prediction.networks import identity_bundle
from tests.training.runs import FARVOX, farvox

KEYS = {"parameters", "multiply_adds_per_voxel", "seconds_per_voxel", "peak_memory_mb", "receptive_field"}


def test_the_2d_network_as_its_paper_counts_it() -> None:
    done = farvox("profile", "unet2d", "--size", "32", "32", "3", "--json", "--repeats", "2")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["multiply_adds_per_voxel"] == 38_640
    assert document["parameters"] == 1_082_211
    assert document["receptive_field"] == [32, 32, 1]
    assert document["receptive_field_truncated"] == [True, True, False]
    assert document["seconds_per_voxel"] * 32 * 32 * 3 == pytest.approx(document["seconds"])
    assert document.keys() >= KEYS
    text = farvox("profile", "unet2d", "--size", "32", "32", "3", "--repeats", "1").stdout
    assert "38,640 per voxel" in text
    assert "32+×32+×1 voxels" in text


def test_options_channels_and_classes_reach_the_network() -> None:
    options = ("--set", "widths=[4, 8]", "--channels", "3", "--classes", "5")
    document = json.loads(farvox("profile", "unet3d", "--size", "8", "8", "8", *options, "--json").stdout)
    network = create_model("unet3d", 3, 5, widths=[4, 8])
    assert document["parameters"] == sum(p.numel() for p in network.parameters())
    assert document["widths"] == [4, 8]
    assert document["has_global_normalization"] is True


def test_a_bundle_is_profiled_as_it_was_trained(tmp_path: Path) -> None:
    made = identity_bundle({1: "a", 2: "b"}, (1, 1, 2))
    network = create_model("unet3d", classes=3, widths=[4, 8])
    entry = ModelEntry(name="unet3d", in_channels=1, classes=3, options={"widths": [4, 8]})
    save_bundle(tmp_path / "b", network, made.manifest.model_copy(update={"model": entry}), made.recipe)
    assert load_bundle(tmp_path / "b").manifest.inference.patch_size == (16, 16, 16)
    document = json.loads(farvox("profile", tmp_path / "b", "--json").stdout)
    assert document["size"] == [16, 16, 16]
    assert document["parameters"] == sum(p.numel() for p in network.parameters())
    refused = farvox("profile", tmp_path / "b", "--classes", "4")
    assert refused.returncode == 2
    assert "with a bundle" in refused.stderr


def test_memory_too_little_to_see_is_not_called_nothing() -> None:
    network = ("unet3d", "--size", "2", "2", "2", "--set", "widths=[2]", "--repeats", "1")
    assert json.loads(farvox("profile", *network, "--json").stdout)["peak_memory_mb"] is None
    assert "peak memory      too little to be measured\n" in farvox("profile", *network).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["unet3d", "--set", "widths=[100000000]"],
        ["unet3d", "--set", "widths=[1000000000000000000]"],
        ["unet2d", "--size", "100000", "100000", "100000"],
        ["unet2d", "--size", "10000000", "10000000", "10000000"],
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_built(arguments: list[str]) -> None:
    started = time.process_time()
    error = CliRunner().invoke(app, ["profile", *arguments]).exception
    assert time.process_time() - started < 10
    assert isinstance(error, ResourceError)
    assert "does not fit into memory; hint: use a smaller size, or options of a smaller network" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit on a process's memory")
def test_memory_that_runs_out_on_the_way_is_said_with_what_helps() -> None:
    limited = ["bash", "-c", 'ulimit -v 3000000; "$@"', "bash", *FARVOX, "profile"]
    done = subprocess.run(
        [*limited, "unet3d", "--size", "192", "192", "192"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: unet3d with an image of 192×192×192 voxels does not fit into memory; "
        "hint: use a smaller size, or options of a smaller network\n"
    )


def test_an_error_is_one_line_and_no_traceback() -> None:
    done = farvox("profile", "unet9d")
    assert done.returncode == 2
    assert done.stderr == "error: no network is called 'unet9d'; hint: did you mean 'unet3d'?\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["unet9d"], "no network is called 'unet9d'; hint: did you mean"),
        (["unet2d", "--set", "colour=red"], "has no option 'colour'"),
        (["unet2d", "--set", "colour"], "option=value"),
        (["unet2d", "--classes", "1"], "classes=1"),
        (["unet2d", "--channels", "0"], "in_channels=0"),
        (["unet2d", "--size", "0", "4", "4"], "size 0 4 4"),
        (["obelisk-hybrid", "--set", "variant=tcai"], "did you mean 'tcia'"),
        (["unet2d", "--size", "4", "4"], "--size"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], word: str) -> None:
    done = CliRunner().invoke(app, ["profile", *arguments])
    if isinstance(done.exception, FarvoxError):  # `main` prints it and ends with its exit code
        assert done.exception.exit_code == 2
        assert word in str(done.exception)
    else:
        assert done.exit_code == 2
        assert word in done.stderr


def test_the_list_says_what_there_is_and_costs() -> None:
    document = json.loads(farvox("models", "--json").stdout)
    assert list(document) == list_models()
    for name, facts in document.items():
        assert facts["multiply_adds"] == model_info(name).multiply_adds > 0
        assert facts["paper"]
        assert len(facts["min_size"]) == 3


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_a_terminal_a_line_a_network(columns: int) -> None:
    done = subprocess.run(
        [*FARVOX, "models"], capture_output=True, text=True, env={**os.environ, "COLUMNS": str(columns)}, check=True
    )
    lines = done.stdout.rstrip("\n").splitlines()
    assert len(lines) == 2 + len(list_models())
    assert max(map(len, lines)) <= columns
    for name in list_models():
        (line,) = (line for line in lines if line.split()[0] == name)
        facts = model_info(name)
        assert f"{facts.parameters:,}" in line
        assert f"{facts.multiply_adds:,}" in line
        assert facts.paper[:12] in line
