"""The direction of imports between packages, and how little the light parts pull in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "farvox"
ANYWHERE = {
    "errors",
    "types",
    "labels",
    "devices",
    "progress",
    "_atomic",
    "_deprecated",
    "_optional",
    "_plugins",
    "_tables",
    "_versions",
}
ALLOWED = {
    "geometry": set(),
    "ops": set(),
    "blocks": {"ops"},
    "models": {"blocks", "ops"},
    "losses": set(),
    "metrics": set(),
    "recipes": set(),
    "io": {"geometry"},
    "data": {"io", "geometry", "figures"},
    "synthetic": {"geometry"},
    "preprocessing": {"io", "data", "geometry", "models", "recipes"},
    "sampling": {"preprocessing", "geometry", "models", "recipes"},
    "bundle": {"models", "recipes", "preprocessing"},
    "prediction": {"io", "data", "preprocessing", "bundle", "geometry", "models"},
    "evaluation": {"io", "data", "metrics", "geometry"},
    "profiling": {"models", "bundle", "recipes"},
    "figures": set(),
    "runs": {"io", "data", "geometry", "recipes", "evaluation", "figures"},
    "report": {"runs", "evaluation", "figures"},
    "localization": {"io", "data", "geometry", "models", "prediction", "evaluation"},
    "registration": {
        "io",
        "data",
        "bundle",
        "geometry",
        "models",
        "ops",
        "prediction",
        "metrics",
        "figures",
        "preprocessing",
    },
    "comparison": {
        *("data", "evaluation", "models", "preprocessing", "profiling", "recipes", "report", "runs", "training"),
    },
    "training": {
        *("io", "data", "preprocessing", "sampling", "models", "losses", "prediction", "evaluation", "bundle"),
        *("recipes", "geometry", "runs", "report"),
    },
}


def imported(path: Path) -> set[str]:
    """Packages of farvox that a file imports, inside functions too."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        packages |= {name.split(".")[1] for name in names if name.startswith("farvox.")}
    return packages - ANYWHERE


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_upstream_packages(package: str) -> None:
    for path in sorted((SOURCE / package).rglob("*.py")):
        beyond = imported(path) - ALLOWED[package] - {package}
        assert not beyond, f"{path.relative_to(SOURCE)} imports {sorted(beyond)}"


def test_every_package_has_its_rule() -> None:
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages - {"cli"} == set(ALLOWED)


def loaded_by(code: str) -> set[str]:
    """Modules loaded after running code in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_networks_losses_and_the_training_loop_need_torch_and_little_else() -> None:
    packages = "farvox.ops, farvox.blocks, farvox.models, farvox.losses, farvox.training.loop"
    code = f"import {packages}; farvox.models.create_model('unet3d')"
    heavy = {"monai", "nibabel", "SimpleITK", "lightning_fabric", "matplotlib", "scipy", "typer", "rich", "tomli_w"}
    assert not loaded_by(code) & heavy


def test_help_and_the_list_of_networks_import_no_torch() -> None:
    for arguments in (["--help"], ["models"], ["train", "--help"]):
        run = "from farvox.cli.app import app\napp(standalone_mode=False)"
        code = f"import sys; sys.argv = ['farvox', *{arguments}]\n{run}"
        found = loaded_by(code)
        assert "typer" in found
        assert not found & {"torch", "numpy", "monai", "SimpleITK"}


def test_predicting_does_not_wait_for_torchs_compiler() -> None:
    """Importing it takes as long as torch itself."""
    found = loaded_by("import farvox.prediction, farvox.models; farvox.models.create_model('obelisk-hybrid')")
    assert "torch" in found
    assert "torch._dynamo" not in found
