"""Convert the weights that the authors of OBELISK published: four layouts, which are recognised by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from farvox.errors import BundleError
from farvox.models import create_model

Parts = dict[str, str]
"""Layer of our network → published layer; the parameters of a layer have the same names in both."""


@dataclass(frozen=True)
class _Layout:
    """How a published checkpoint is recognised and converted.

    Args:
        marks: Keys that occur together in this layout only.
        head: The key whose first axis has the length of the number of classes.
        first: The key whose second axis depends on the number of image channels.
        values_per_channel: Entries along the second axis of `first` for each image channel.
        model: Name of our network.
        options: Its options.
        parts: Layer of our network → published layer.
        kernels: OBELISK layer of our network → published offsets and grouped 1×1×1 weights.
    """

    marks: tuple[str, ...]
    head: str
    first: str
    values_per_channel: int
    model: str
    options: dict[str, Any]
    parts: Parts
    kernels: dict[str, tuple[str, str]]


def convert_state_dict(state: Mapping[str, torch.Tensor]) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    """Convert a published state dict to the network of farvox with the same output.

    The layouts are those of github.com/mattiaspaul/OBELISK: the hybrids trained on TCIA and on VISCERAL, the original
    network (VISCERAL) and the all-convolutional U-Net (TCIA). Offsets are converted from the axis order of
    `grid_sample` to array order. Checkpoints that are too old for `num_batches_tracked` get 0.

    Args:
        state: Published name → tensor, as from `torch.load(..., weights_only=True)`.

    Returns:
        Name of the network; arguments of `create_model`, with `in_channels` and `classes`; state dict. The original
        network was trained on smoothed scans, so it is built with `smoothing`; use `smoothing=[]` for images that are
        smoothed already.

    Raises:
        BundleError: An unknown layout, or one with missing, additional or differently shaped parts.
        ModelError: A known layout with too few channels or classes.
    """
    fits = [layout for layout in _LAYOUTS if all(key in state for key in layout.marks)]
    if not fits or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BundleError(
            f"weights of an unknown layout ({len(state)} entries, the first '{next(iter(state), '')}')",
            allowed="the published OBELISK networks: hybrid (TCIA, VISCERAL), original, all-convolutional U-Net (TCIA)",
        )
    layout = fits[0]
    for key in (layout.head, layout.first):
        if key not in state or state[key].ndim < 2:
            raise BundleError(f"weights like a published {layout.model}, but '{key}' is missing or misshapen")
    channels = state[layout.first].shape[1] // layout.values_per_channel
    arguments = {"in_channels": channels, "classes": state[layout.head].shape[0], **layout.options}
    converted = _rename(state, layout)
    _check(converted, layout.model, arguments)
    return layout.model, arguments, converted


def _rename(state: Mapping[str, torch.Tensor], layout: _Layout) -> dict[str, torch.Tensor]:
    ours: dict[str, torch.Tensor] = {}
    layers = {theirs: name for name, theirs in layout.parts.items()}
    kernels = {offsets: name for name, (offsets, _) in layout.kernels.items()}
    weights = {f"{weight}.weight": name for name, (_, weight) in layout.kernels.items()}
    for key, value in state.items():
        layer, _, parameter = key.rpartition(".")
        if key in kernels:
            if value.ndim < 2 or value.shape[-1] != 3 or not value.numel():
                raise BundleError(
                    f"weights like a published {layout.model}, but '{key}' has shape {tuple(value.shape)}",
                    allowed="offsets along the last axis, three numbers each",
                )
            pairs = value.shape[-2:-1] if value.shape[-2:-1] != (1,) else ()
            ours[f"{kernels[key]}.offsets"] = value.reshape(-1, *pairs, 3).flip(-1)
        elif key in weights:
            ours[f"{weights[key]}.weight"] = (
                value.flatten(1) if value.ndim > 1 else value
            )  # otherwise `_check` reports the shape
        elif layer in layers:
            # The original network evaluates points, so its 1×1×1 convolutions have one axis here.
            flat = layout.model == "obelisk-dense" and value.ndim == 5
            ours[f"{layers[layer]}.{parameter}"] = value.flatten(2) if flat else value
            if parameter == "running_var":
                ours.setdefault(f"{layers[layer]}.num_batches_tracked", torch.tensor(0))
        else:
            raise BundleError(f"weights like a published {layout.model}, but '{key}' is not part of it")
    return ours


def _check(state: dict[str, torch.Tensor], model: str, arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        expected = create_model(model, **arguments).state_dict()
    if missing := sorted(expected.keys() - state.keys()):
        raise BundleError(f"weights like a published {model}, but {len(missing)} parts are missing: {missing[0]}, ...")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise BundleError(
                f"weights like a published {model}, but {key} has shape {tuple(state[key].shape)}",
                allowed=f"{tuple(value.shape)}",
            )


def _units(names: Mapping[str, str]) -> Parts:
    """Convolution and batch norm of each unit; their published names have the same ending."""
    return {f"{ours}.{n}": kind + end for ours, end in names.items() for n, kind in enumerate(("conv", "batch"))}


def _hybrid(variant: str, quarter: tuple[str, ...], decoder: dict[str, str], head: str) -> _Layout:
    parts = _units(
        {"encode_full": "0", "encode_half.0": "1", "encode_half.1": "11", "decode_quarter": "6bU"}
        | {f"encode_quarter.{n}": end for n, end in enumerate(quarter)}
        | decoder
    )
    for kernel, number in (("near", 1), ("far", 2)):
        for layer, norm, convolution in (("layers.0", "a", "b"), ("layers.1", "b", "c"), ("layers.2", "c", "d")):
            parts[f"{kernel}_dense.{layer}.0"] = f"batch{number}{norm}"
            parts[f"{kernel}_dense.{layer}.1"] = f"linear{number}{convolution}"
        parts[f"{kernel}_dense.gather.0"], parts[f"{kernel}_dense.gather.1"] = f"batch{number}d", f"linear{number}e"
    return _Layout(
        marks=("offset2", f"{head}.weight"),
        head=f"{head}.weight",
        first="conv0.weight",
        values_per_channel=1,
        model="obelisk-hybrid",
        options={"variant": variant, "compat": "published"},
        parts=parts | {"head": head},
        kernels={"near": ("offset1", "linear1a"), "far": ("offset2", "linear2a")},
    )


def _original() -> _Layout:
    parts = {"norm": "BN1", "reduce.0": "LIN2", "reduce.1": "BN2", "head": "LIN4"}
    for n, letter in enumerate("abcd"):
        parts |= {f"grow.{n}": f"LIN3{letter}", f"grow_norms.{n}": f"BN3{letter}"}
    return _Layout(
        marks=("offset1", "LIN1.weight", "LIN3d.weight"),
        head="LIN4.weight",
        first="LIN1.weight",
        values_per_channel=256,  # 1024 pairs in 4 groups
        model="obelisk-dense",
        options={"compat": "published", "smoothing": [5, 5, 3], "stride": 4},
        parts=parts,
        kernels={"obelisk": ("offset1", "LIN1")},
    )


def _all_convolutional() -> _Layout:
    names = {"encode_full": "0", "decode_full": "7U"}
    names |= {f"encoder.{n}.{m}": str(n + 1) * (m + 1) for n in range(5) for m in range(2)}
    names |= {f"decoder.{n}": end for n, end in enumerate(("6dU", "6cU", "6bU", "6U"))}
    return _Layout(
        marks=("conv55.weight", "conv6dU.weight", "conv77U.weight"),
        head="conv77U.weight",
        first="conv0.weight",
        values_per_channel=1,
        model="unet-allconv",
        options={"variant": "tcia"},
        parts=_units(names) | {"head": "conv77U"},
        kernels={},
    )


_LAYOUTS = (
    _hybrid("tcia", ("2", "22", "3"), {"decode_half": "6U", "decode_full": "7U"}, "conv77U"),
    _hybrid("visceral", ("2",), {"decode_half": "6U"}, "conv8"),
    _original(),
    _all_convolutional(),
)
