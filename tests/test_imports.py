"""The direction of imports between rooms, and how little the light parts pull in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "farvox"
ANYWHERE = {"errors", "types", "labels", "files", "devices", "optional"}
ALLOWED = {
    "geometry": set(),
    "ops": set(),
    "blocks": {"ops"},
    "models": {"blocks", "ops"},
    "losses": set(),
    "metrics": set(),
    "recipes": set(),
    "data": {"geometry"},
    "bundle": {"models", "recipes", "data"},
    "predict": {"data", "bundle", "geometry", "models"},
    "evaluate": {"data", "metrics", "geometry"},
    "report": {"data", "geometry"},
    "locate": {"data", "geometry", "models", "predict", "evaluate"},
    "register": {"data", "bundle", "geometry", "models", "ops", "predict", "metrics", "report"},
    "compare": {"evaluate", "models", "report"},
    "train": {"data", "models", "losses", "predict", "evaluate", "bundle", "recipes", "geometry"},
}


def imported(path: Path) -> set[str]:
    """Rooms of farvox that a file imports, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("farvox.")}
    return rooms - ANYWHERE


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_lies_upstream(room: str) -> None:
    for path in sorted((SOURCE / room).rglob("*.py")):
        beyond = imported(path) - ALLOWED[room] - {room}
        assert not beyond, f"{path.relative_to(SOURCE)} imports {sorted(beyond)}"


def test_every_room_has_its_rule() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms - {"cli"} == set(ALLOWED)


def loaded_by(code: str) -> set[str]:
    """Modules loaded after running code in a fresh interpreter."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_networks_losses_and_the_training_loop_need_torch_and_little_else() -> None:
    rooms = "farvox.ops, farvox.blocks, farvox.models, farvox.losses, farvox.train.loop"
    code = f"import {rooms}; farvox.models.create_model('unet3d')"
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
    found = loaded_by("import farvox.predict, farvox.models; farvox.models.create_model('obelisk-hybrid')")
    assert "torch" in found
    assert "torch._dynamo" not in found
