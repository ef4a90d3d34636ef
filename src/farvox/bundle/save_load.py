"""Save and load a bundle: a folder of safetensors weights, a JSON manifest, a TOML recipe and a model card."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

import farvox
from farvox._atomic import write_json
from farvox.bundle.manifest import FORMAT_VERSION, Manifest, upgrade_manifest
from farvox.bundle.model_card import model_card
from farvox.errors import BundleError, FarvoxError, ResourceError
from farvox.models import create_model
from farvox.models.registry import imports_code
from farvox.recipes import Recipe, dump_recipe, parse_recipe
from farvox.types import PathLike

WEIGHTS, MANIFEST, RECIPE, CARD = "weights.safetensors", "manifest.json", "recipe.toml", "README.md"


@dataclass(frozen=True)
class Bundle:
    """A trained network and everything needed to use it."""

    network: torch.nn.Module
    manifest: Manifest
    recipe: Recipe
    path: Path


def save_bundle(
    folder: PathLike, network: torch.nn.Module, manifest: Manifest, recipe: Recipe, *, whole_recipe: bool = True
) -> Path:
    """Write a bundle completely or not at all; an existing bundle is replaced when the new one is complete.

    Args:
        folder: Where; a symbolic link is followed.
        network: Its state dict is saved, from any device.
        manifest: The digest of the weights and the versions of the libraries are added.
        recipe: How the network was trained.
        whole_recipe: Write all settings, defaults too; otherwise only those that are set in `recipe`.

    Returns:
        `folder`.

    Raises:
        ResourceError: The disk is full or not writable; an existing bundle is kept.
    """
    from safetensors import SafetensorError

    target, scratch = Path(os.path.realpath(folder)), None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        _write(new, network, manifest, recipe, whole_recipe)
        _exchange(target, new, old)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        kept = f"; the previous one is in {scratch / 'old'}" if scratch and _has_only_copy(scratch, target) else ""
        raise ResourceError(f"cannot write bundle {folder}: {reason}{kept}", hint=_hint(error)) from None
    finally:
        if scratch and not _has_only_copy(scratch, target):
            shutil.rmtree(scratch, ignore_errors=True)
    return Path(folder)


def add_metrics(folder: Path, metrics: dict[str, object]) -> None:
    """Write the metrics of the validation scans into the manifest and the model card of a bundle.

    Raises:
        ResourceError: The disk is full or not writable.
    """
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_json(folder / MANIFEST, {**content, "metrics": metrics})
    recipe = parse_recipe((folder / RECIPE).read_text(encoding="utf-8"), RECIPE)
    card = model_card(Manifest.model_validate({**content, "metrics": metrics}), recipe)
    (folder / CARD).write_text(card, encoding="utf-8")


def load_bundle(folder: PathLike, *, trust_code: bool = False) -> Bundle:
    """Read a bundle; the network is on the CPU in eval mode.

    Args:
        folder: The bundle's folder.
        trust_code: If the manifest names an own network as "package.module:function", import that module, which runs
            its code. Networks that are registered need no trust.

    Raises:
        BundleError: The bundle is incomplete, damaged, inconsistent, made by a newer program, or needs `trust_code`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(
            f"no bundle folder {folder}", hint="give the bundle folder of a fold, such as RUN/fold-0/bundle"
        )
    missing = [name for name in (WEIGHTS, MANIFEST, RECIPE) if not (folder / name).is_file()]
    if missing:
        inner = sorted(str(path.parent) for path in folder.glob("**/bundle/manifest.json"))
        hint = f"did you mean {inner[0]}?" if inner else "train again or copy the whole folder"
        raise BundleError(f"{folder} has no {', '.join(missing)}", allowed="a complete bundle", hint=hint)
    content = _read_manifest(folder / MANIFEST)
    try:
        recipe = parse_recipe((folder / RECIPE).read_text(encoding="utf-8"), str(folder / RECIPE))
    except (FarvoxError, UnicodeDecodeError, OSError) as error:
        raise BundleError(f"{folder / RECIPE} is damaged: {error}", hint="copy the bundle again") from None
    manifest = _validated_manifest(folder / MANIFEST, content, recipe)
    if manifest.weights_sha256 and manifest.weights_sha256 != _sha256(folder / WEIGHTS):
        raise BundleError(
            f"{folder / WEIGHTS} has changed since it was saved (another SHA-256)", hint="copy the bundle again"
        )
    entry = manifest.model
    if not trust_code and imports_code(entry.name):
        raise BundleError(
            f"{folder} names the own network '{entry.name}', whose module would be imported",
            hint="if you trust the bundle, use Predictor.load(..., trust_code=True), or farvox predict --trust-code",
        )
    try:
        network = create_model(entry.name, in_channels=entry.in_channels, classes=entry.classes, **entry.options)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (FarvoxError, SafetensorError, RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise BundleError(
            f"{folder}: weights and manifest do not match: {first}", hint="copy the bundle again"
        ) from None
    return Bundle(network.eval(), manifest, recipe, folder)


def _write(folder: Path, network: torch.nn.Module, manifest: Manifest, recipe: Recipe, whole_recipe: bool) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    complete = manifest.model_copy(
        update={
            "weights_sha256": _sha256(folder / WEIGHTS),
            "versions": {
                "farvox": farvox.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
    )
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / RECIPE).write_text(dump_recipe(recipe, only_set=not whole_recipe), encoding="utf-8")
    (folder / CARD).write_text(model_card(complete, recipe), encoding="utf-8")


def _exchange(target: Path, new: Path, old: Path) -> None:
    """Move `new` to `target` and the existing bundle to `old`; undo it on failure."""
    if not target.exists():
        new.replace(target)
        return
    if not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    target.replace(old)
    try:
        new.replace(target)
    except BaseException:  # also after an interrupt
        old.replace(target)
        raise


def _has_only_copy(scratch: Path, target: Path) -> bool:
    return (scratch / "old").exists() and not target.exists()


def _hint(error: Exception) -> str:
    number = getattr(error, "errno", None)
    # safetensors has the number in its message only.
    if number is None and (match := re.search(r"os error (\d+)", str(error))):
        number = int(match[1])
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free disk space"
    if number in (errno.EBUSY, errno.EXDEV):
        return "give a new folder; this one is a mount point and cannot be replaced as a whole"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give a folder that you may write to"
    return "give another folder"


def _read_manifest(path: Path) -> object:
    """The JSON document, if this program knows its version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(f"{path} is damaged: {error}", hint="copy the bundle again") from None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        versions = content.get("versions")
        is_named = isinstance(versions, dict) and "farvox" in versions
        writer = f"farvox {versions['farvox']}" if is_named else "a newer release"
        raise BundleError(
            f"{path.parent} has bundle format {version}, written by {writer}",
            allowed=f"up to {FORMAT_VERSION}",
            hint="update farvox",
        )
    return content


def _validated_manifest(path: Path, content: object, recipe: Recipe) -> Manifest:
    try:
        return Manifest.model_validate(upgrade_manifest(content, recipe) if isinstance(content, dict) else content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {key}: {first['msg']}", hint="copy the bundle again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
