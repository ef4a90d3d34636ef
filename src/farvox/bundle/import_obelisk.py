"""A published OBELISK checkpoint becomes a bundle: weights in our terms, and what a scan must be put through first."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from farvox.bundle.convert_published import translate
from farvox.bundle.manifest import Inference, LabelEntry, Manifest, ModelEntry
from farvox.bundle.save_load import CARD, MANIFEST, RECIPE, WEIGHTS, Bundle, load_bundle, save_bundle
from farvox.errors import BundleError, ModelError, UsageError
from farvox.models import count_parameters, create_model
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import Recipe
from farvox.recipes.schema import ModelSettings, PatchSettings, TrainSettings

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TCIA = ("spleen", "pancreas", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "duodenum")
_VISCERAL = ("liver", "spleen", "bladder", "left kidney", "right kidney", "left psoas", "right psoas")
_WHOLE_BOX = "crop scans tightly to the abdominal organs first: what is given becomes 144×144×144 voxels"
_SAME_VIEW = (
    "offsets are fractions of the scan: crop or pad scans to about 468×345×480 mm (right–left, front–back, height)"
)
_TURNED = "axis directions are not recorded with the weights; {}"
_LAI = _TURNED.format("left, anterior, inferior fits a labelled CT, every other choice clearly less")
_RAS = _TURNED.format("right, anterior, superior fits labelled CTs best")
# Found on two scans with the original network: the liver comes out on the patient's right, "left kidney" beside it.
_SIDES = "label names are the published ones, but left and right of kidneys and psoas came out exchanged on two CTs"


@dataclass(frozen=True)
class _Published:
    """What goes with a published network and is not in its file.

    Args:
        dataset: Scans it was trained on.
        source: Paper that describes it.
        labels: Names of classes 1, 2, ... in the order of the network's answers.
        preprocessing: From HU to the network's input.
        note: What to know before use.
    """

    dataset: str
    source: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    note: str


def _ct(zero: float, one: float, **space: Any) -> Preprocessing:
    """Input (HU - zero) / (one - zero); the limits are those of 16 bits, so nothing is clipped."""
    step = IntensityNormalization(kind="dataset", low=-32768, high=32767, mean=zero, sd=one - zero)
    return Preprocessing(channels=("CT",), intensity=(step,), **space)


_MEDIA = "Heinrich, Oktay, Bouteldja: OBELISK-Net, Medical Image Analysis 54 (2019)"
_MIDL = "Heinrich, Oktay, Bouteldja: OBELISK - One Kernel to Solve Nearly Everything, MIDL 2018"
_TCIA_SET = "43 abdominal CT scans of TCIA, labels of Gibson et al. 2018"
_VISCERAL_SET = "10 CT scans of VISCERAL Anatomy3"
_BOX: dict[str, Any] = {"shape": (144, 144, 144), "axes": "LAI"}

_KNOWN: dict[tuple[str, str | None], _Published] = {
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


def import_obelisk(checkpoint: Path, out: Path) -> Bundle:
    """Write a bundle with the network of a published checkpoint.

    Args:
        checkpoint: A `.pth` file of github.com/mattiaspaul/OBELISK. It is read as data; code in it never runs.
        out: Folder of the bundle; a bundle that stands there is replaced.

    Returns:
        The bundle, as it was read back.

    Raises:
        BundleError: The file is missing, damaged, holds code, is not one of the known layouts, or holds values that no
            training gives.
        UsageError: `out` is something else than a bundle, or cannot be replaced as a whole.
        ResourceError: The disk is full or not writable.
    """
    _require_free(out)
    state = read_checkpoint(checkpoint)
    try:
        name, arguments, translated = translate(state)
    except (BundleError, ModelError) as error:
        raise BundleError(f"{checkpoint}: {error.found}", allowed=error.allowed, hint=error.hint) from None
    known = _KNOWN.get((name, arguments.get("variant")))
    classes, channels = arguments["classes"], arguments["in_channels"]
    if known is None or classes != len(known.labels) + 1 or channels != 1:
        raise BundleError(
            f"{checkpoint}: a {name} with {channels} channel(s) and {classes} classes",
            allowed="the published networks: 1 channel; 9 classes (TCIA) or 8 (VISCERAL)",
        )
    for key, value in translated.items():
        if not torch.isfinite(value.float()).all():
            raise BundleError(f"{checkpoint}: {key} holds NaN or infinite weights", hint="download it again")
        if key.endswith(".running_var") and (value < 0).any():
            raise BundleError(f"{checkpoint}: {key} holds a negative variance", hint="download it again")
    network = create_model(name, **arguments)
    network.load_state_dict(translated)
    options = {key: value for key, value in arguments.items() if key not in ("in_channels", "classes")}
    names = ("background", *known.labels)
    manifest = Manifest(
        model=ModelEntry(name=name, in_channels=channels, classes=classes, options=options),
        parameters=count_parameters(network),
        preprocessing=known.preprocessing,
        inference=Inference(precision="float32"),
        labels=tuple(LabelEntry(value=value, name=label) for value, label in enumerate(names)),
        dataset=known.dataset,
        licence="MIT (weights: github.com/mattiaspaul/OBELISK)",
        note=known.note,
        training={"stop_reason": f"imported from {checkpoint.name}"},
    )
    save_bundle(out, network.eval(), manifest, _recipe(name, options, known.source), whole_recipe=False)
    return load_bundle(out)


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, by name, on the CPU: plain arrays of real numbers.

    Raises:
        BundleError: The file is missing, damaged, holds code, or something else than named, plain tensors.
    """
    if not path.is_file():
        raise BundleError(f"no checkpoint file {path}", hint="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch notes on the way to its error, the error says
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    # Foreign bytes make torch raise whatever its parts happen to raise.
    except Exception as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise BundleError(
                f"{path} is a pickle that calls for code ({named[1]}); nothing of it was run",
                allowed="a checkpoint of tensors alone",
            ) from None
        raise BundleError(
            f"{path} is damaged, or not a checkpoint of tensors alone; nothing in it was run",
            hint="download it again; the known ones are those of github.com/mattiaspaul/OBELISK",
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BundleError(f"{path} holds something else than named tensors", allowed="a published OBELISK checkpoint")
    for key, value in state.items():
        if odd := _unsupported_reason(str(key), value):
            raise BundleError(f"{path}: '{key}' is {odd}", allowed="plain tensors of real numbers")
    return {str(key): value for key, value in state.items()}


def _unsupported_reason(key: str, value: torch.Tensor) -> str:
    """What keeps a tensor from being a plain array of real numbers (or a count of batches); "" where nothing does."""
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
    # A few stored values can be declared to stand for any number, which would fill the memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a tensor of shape {tuple(value.shape)} of which the file holds only a part"
    return ""


def _require_free(out: Path) -> None:
    """Refuse to put a bundle in the place of anything but a bundle or an empty folder, or where it cannot be moved."""
    if not out.exists():
        return
    here = Path.cwd().is_relative_to(os.path.realpath(out))
    if here or os.path.ismount(out):
        what = "the folder you are in" if here else "a mount point"
        raise UsageError(f"{out} is {what}, which cannot be replaced as a whole", hint=f"--out {out / 'bundle'}")
    inside = {entry.name for entry in out.iterdir()} if out.is_dir() else {"file"}
    if inside - {WEIGHTS, MANIFEST, RECIPE, CARD}:
        raise UsageError(f"{out} exists and is not a bundle", allowed="a new folder, or a bundle to replace")


def _recipe(model: str, options: dict[str, Any], source: str) -> Recipe:
    """What is known for certain, and no more: this program did not run the training."""
    return Recipe(
        name=f"published-{model}",
        description="Weights trained by the authors; how, their paper says.",
        source=source,
        model=ModelSettings(name=model, options=options),
        patch=PatchSettings(size="whole"),
        train=TrainSettings(precision="float32"),
    )
