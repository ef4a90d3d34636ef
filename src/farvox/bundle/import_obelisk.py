"""Convert a published OBELISK checkpoint to a bundle: the weights, and the preprocessing of the papers."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from farvox.bundle.convert_published import convert_state_dict
from farvox.bundle.manifest import Inference, LabelEntry, Manifest, ModelEntry
from farvox.bundle.save_load import CARD, MANIFEST, RECIPE, WEIGHTS, Bundle, load_bundle, save_bundle
from farvox.errors import BundleError, ModelError, UsageError
from farvox.models import count_parameters, create_model
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import Recipe
from farvox.recipes.schema import ModelSettings, PatchSettings, TrainSettings
from farvox.types import PathLike

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TCIA = ("spleen", "pancreas", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "duodenum")
_VISCERAL = ("liver", "spleen", "bladder", "left kidney", "right kidney", "left psoas", "right psoas")
_WHOLE_BOX = "crop scans tightly to the abdominal organs first: every scan is resampled to 144×144×144 voxels"
_SAME_VIEW = (
    "offsets are fractions of the scan: crop or pad scans to about 468×345×480 mm (right–left, front–back, height)"
)
_AXES = "axis directions are not recorded with the weights; {}"
_LAI = _AXES.format("left, anterior, inferior fits a labelled CT best by far")
_RAS = _AXES.format("right, anterior, superior fits labelled CTs best")
# Seen in two scans with the original network: the liver is on the patient's right, and "left kidney" next to it.
_SIDES = "label names are the published ones, but left and right of kidneys and psoas were exchanged in two CTs"


@dataclass(frozen=True)
class _Published:
    """Facts about a published network that are not in its file.

    Args:
        dataset: The training scans.
        source: The paper.
        labels: Names of classes 1, 2, ... in the order of the network's output.
        preprocessing: From HU to the network's input.
        note: What to know before use.
    """

    dataset: str
    source: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    note: str


def _ct(zero: float, one: float, **space: Any) -> Preprocessing:
    """Input (HU - zero) / (one - zero), without clipping: the limits are those of 16 bits."""
    step = IntensityNormalization(kind="dataset", low=-32768, high=32767, mean=zero, sd=one - zero)
    return Preprocessing(channels=("CT",), intensity=(step,), **space)


_MEDIA = "Heinrich, Oktay, Bouteldja: OBELISK-Net, Medical Image Analysis 54 (2019)"
_MIDL = "Heinrich, Oktay, Bouteldja: OBELISK - One Kernel to Solve Nearly Everything, MIDL 2018"
_TCIA_SET = "43 abdominal CT scans of TCIA, labels of Gibson et al. 2018"
_VISCERAL_SET = "10 CT scans of VISCERAL Anatomy3"
_BOX: dict[str, Any] = {"shape": (144, 144, 144), "axes": "LAI"}

_PUBLISHED: dict[tuple[str, str | None], _Published] = {
    ("obelisk-hybrid", "tcia"): _Published(_TCIA_SET, _MEDIA, _TCIA, _ct(-1024, 0, **_BOX), f"{_WHOLE_BOX}; {_LAI}"),
    ("unet-allconv", "tcia"): _Published(_TCIA_SET, _MEDIA, _TCIA, _ct(0, 1, **_BOX), f"{_WHOLE_BOX}; {_LAI}"),
    ("obelisk-hybrid", "visceral"): _Published(
        _VISCERAL_SET,
        _MEDIA,
        _VISCERAL,
        _ct(0, 1000, spacing=(3, 3, 3), antialias_pooling=True),
        f"{_SAME_VIEW}; {_RAS}; {_SIDES}",
    ),
    ("obelisk-dense", None): _Published(
        _VISCERAL_SET,
        _MIDL,
        _VISCERAL,
        _ct(0, 500, spacing=(1.5, 1.5, 1.5)),
        f"{_SAME_VIEW}; {_RAS}; {_SIDES}",
    ),
}


def import_obelisk(checkpoint: PathLike, out: PathLike) -> Bundle:
    """Convert a published checkpoint to a bundle.

    Args:
        checkpoint: A `.pth` file of github.com/mattiaspaul/OBELISK. Code in it is not run.
        out: Folder of the bundle; an existing bundle is replaced.

    Returns:
        The bundle, read from `out`.

    Raises:
        BundleError: The file is missing or damaged, contains code or impossible values, or its layout is unpublished.
        UsageError: `out` is not a bundle, or cannot be replaced as a whole.
        ResourceError: The disk is full or not writable.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    _require_free(out)
    state = read_checkpoint(checkpoint)
    try:
        name, arguments, converted = convert_state_dict(state)
    except (BundleError, ModelError) as error:
        raise BundleError(f"{checkpoint}: {error.found}", allowed=error.allowed, hint=error.hint) from None
    published = _PUBLISHED.get((name, arguments.get("variant")))
    classes, channels = arguments["classes"], arguments["in_channels"]
    if published is None or classes != len(published.labels) + 1 or channels != 1:
        raise BundleError(
            f"{checkpoint}: a {name} with {channels} channel(s) and {classes} classes",
            allowed="the published networks: 1 channel; 9 classes (TCIA) or 8 (VISCERAL)",
        )
    for key, value in converted.items():
        if not torch.isfinite(value.float()).all():
            raise BundleError(f"{checkpoint}: {key} contains NaN or infinite weights", hint="download it again")
        if key.endswith(".running_var") and (value < 0).any():
            raise BundleError(f"{checkpoint}: {key} contains a negative variance", hint="download it again")
    network = create_model(name, **arguments)
    network.load_state_dict(converted)
    options = {key: value for key, value in arguments.items() if key not in ("in_channels", "classes")}
    names = ("background", *published.labels)
    manifest = Manifest(
        model=ModelEntry(name=name, in_channels=channels, classes=classes, options=options),
        parameters=count_parameters(network),
        preprocessing=published.preprocessing,
        inference=Inference(precision="float32"),
        labels=tuple(LabelEntry(value=value, name=label) for value, label in enumerate(names)),
        dataset=published.dataset,
        licence="MIT (weights: github.com/mattiaspaul/OBELISK)",
        note=published.note,
        training={"stop_reason": f"imported from {checkpoint.name}"},
    )
    save_bundle(out, network.eval(), manifest, _recipe(name, options, published.source), whole_recipe=False)
    return load_bundle(out)


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read the named tensors of a checkpoint to the CPU.

    Raises:
        BundleError: The file is missing or damaged, or contains code or anything but plain tensors of real numbers.
    """
    if not path.is_file():
        raise BundleError(f"no checkpoint file {path}", hint="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says the same
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    # On foreign files, torch raises many types of exceptions.
    except Exception as error:
        if called := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise BundleError(
                f"{path} is a pickle with code ({called[1]}), which was not run",
                allowed="a checkpoint that contains only tensors",
            ) from None
        raise BundleError(
            f"{path} is damaged or not a checkpoint; no code in it was run",
            hint="download it again from github.com/mattiaspaul/OBELISK",
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BundleError(
            f"{path} contains something else than named tensors", allowed="a published OBELISK checkpoint"
        )
    for key, value in state.items():
        if reason := _unsupported_reason(str(key), value):
            raise BundleError(f"{path}: '{key}' is {reason}", allowed="plain tensors of real numbers")
    return {str(key): value for key, value in state.items()}


def _unsupported_reason(key: str, value: torch.Tensor) -> str:
    """Why a tensor is not a plain array of real numbers or a count of batches; "" if it is one."""
    if value.is_nested:
        return "a nested tensor"
    if value.is_quantized:
        return "a quantised tensor"
    if value.layout != torch.strided:
        return f"a tensor in {str(value.layout).removeprefix('torch.')} layout"
    if value.device.type != "cpu":
        return f"a tensor without values (device {value.device.type})"
    counts = key.rpartition(".")[2] == "num_batches_tracked"
    if value.dtype not in _REAL and not (counts and value.dtype in (torch.int32, torch.int64)):
        return f"of type {str(value.dtype).removeprefix('torch.')}"
    # A small file can declare a huge tensor, which would fill the memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a tensor of shape {tuple(value.shape)} of which the file contains only a part"
    return ""


def _require_free(out: Path) -> None:
    """Raise a UsageError if `out` exists and is not a bundle or an empty folder, or cannot be renamed."""
    if not out.exists():
        return
    here = Path.cwd().is_relative_to(os.path.realpath(out))
    if here or os.path.ismount(out):
        what = "the folder you are in" if here else "a mount point"
        raise UsageError(f"{out} is {what}, which cannot be replaced as a whole", hint=f"--out {out / 'bundle'}")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else {"file"}
    if names - {WEIGHTS, MANIFEST, RECIPE, CARD}:
        raise UsageError(f"{out} exists and is not a bundle", allowed="a new folder, or a bundle to replace")


def _recipe(model: str, options: dict[str, Any], source: str) -> Recipe:
    """A recipe with the few settings that are certain: the weights were trained by another program."""
    return Recipe(
        name=f"published-{model}",
        description="Weights trained by the authors as described in their paper.",
        source=source,
        model=ModelSettings(name=model, options=options),
        patch=PatchSettings(size="whole"),
        train=TrainSettings(precision="float32"),
    )
