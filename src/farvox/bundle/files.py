"""Save and load a bundle: a folder of safetensors weights, a JSON manifest and a TOML recipe; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

import farvox
from farvox.bundle.manifest import FORMAT_VERSION, Manifest
from farvox.errors import BundleError, FarvoxError, ResourceError
from farvox.models import create_model
from farvox.recipes import Recipe, dump_recipe, parse_recipe

WEIGHTS, MANIFEST, RECIPE = "weights.safetensors", "manifest.json", "recipe.toml"


@dataclass(frozen=True)
class Bundle:
    """A trained network and everything needed to use it."""

    network: torch.nn.Module
    manifest: Manifest
    recipe: Recipe
    path: Path


def save_bundle(folder: Path, network: torch.nn.Module, manifest: Manifest, recipe: Recipe) -> Path:
    """Write a bundle as a whole: a reader sees the old one or the new one, never a part.

    Raises:
        ResourceError: The disk is full or not writable; what stood there before is kept.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, fresh / WEIGHTS)
        complete = manifest.model_copy(
            update={
                "weights_sha256": _sha256(fresh / WEIGHTS),
                "made_with": {
                    "farvox": farvox.__version__,
                    "torch": str(torch.__version__),
                    "python": platform.python_version(),
                },
            }
        )
        (fresh / MANIFEST).write_text(complete.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (fresh / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
        if folder.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.replace(aside)
            fresh.replace(folder)
            shutil.rmtree(aside)
        else:
            fresh.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"cannot write bundle {folder}: {reason}", remedy="free disk space") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle; the network is on the CPU in eval mode.

    Raises:
        BundleError: Something is missing, damaged, made by a newer program, or does not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(
            f"no bundle folder {folder}", remedy="give the bundle folder of a fold, such as RUN/fold-0/bundle"
        )
    missing = [name for name in (WEIGHTS, MANIFEST, RECIPE) if not (folder / name).is_file()]
    if missing:
        inner = sorted(str(found.parent) for found in folder.glob("**/bundle/manifest.json"))
        remedy = f"did you mean {inner[0]}?" if inner else "train again or copy the whole folder"
        raise BundleError(f"{folder} lacks {', '.join(missing)}", allowed="a complete bundle", remedy=remedy)
    manifest = _read_manifest(folder / MANIFEST)
    try:
        recipe = parse_recipe((folder / RECIPE).read_text(encoding="utf-8"), str(folder / RECIPE))
    except (FarvoxError, UnicodeDecodeError, OSError) as error:
        raise BundleError(f"{folder / RECIPE} is damaged: {error}", remedy="copy the bundle again") from None
    if manifest.weights_sha256 and manifest.weights_sha256 != _sha256(folder / WEIGHTS):
        raise BundleError(
            f"{folder / WEIGHTS} is not the file that was saved (its SHA-256 differs)", remedy="copy the bundle again"
        )
    entry = manifest.model
    try:
        network = create_model(entry.name, in_channels=entry.in_channels, classes=entry.classes, **entry.options)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (FarvoxError, SafetensorError, RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise BundleError(
            f"{folder}: weights and manifest do not fit: {first}", remedy="copy the bundle again"
        ) from None
    return Bundle(network.eval(), manifest, recipe, folder)


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(f"{path} is damaged: {error}", remedy="copy the bundle again") from None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        made = content.get("made_with", {}).get("farvox", "a newer farvox")
        raise BundleError(
            f"{path.parent} has bundle format {version}, made with farvox {made}",
            allowed=f"up to {FORMAT_VERSION}",
            remedy="update farvox",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {key}: {first['msg']}", remedy="copy the bundle again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
