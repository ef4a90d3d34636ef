"""`farvox.profile`: what a network or a bundle costs, measured on this machine."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from farvox.errors import ResourceError, UsageError, is_out_of_memory

if TYPE_CHECKING:
    from torch import nn

    from farvox.profiling.cost import ReceptiveField
    from farvox.types import PathLike, Shape


@dataclass(frozen=True, repr=False)
class Profile:
    """What one pass of a network over one image costs.

    Args:
        name: Name of the network.
        arguments: What it was built with: `in_channels`, `classes` and its options.
        size: Voxels of the image along each axis.
        device: Where it ran.
        parameters: Trainable values, learned offsets included.
        multiply_adds_per_voxel: See `farvox.profiling.cost.multiply_adds`.
        seconds: Median duration of a pass.
        repeats: Number of timed passes.
        peak_memory_mb: Memory used above that of the idle process, MiB; None if it is too little to be measured.
        receptive_field: None if a pass with gradients does not fit into memory.
        bundle: Path of the bundle, if it is one.
    """

    name: str
    arguments: Mapping[str, object]
    size: Shape
    device: str
    parameters: int
    multiply_adds_per_voxel: float
    seconds: float
    repeats: int
    peak_memory_mb: float | None
    receptive_field: ReceptiveField | None
    bundle: str | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as text, for people."""
        size = "×".join(map(str, self.size))
        field = self.receptive_field
        memory = f"{self.peak_memory_mb:,.1f} MB above idle" if self.peak_memory_mb else "too little to be measured"
        arguments = {"bundle": self.bundle, **self.arguments} if self.bundle else self.arguments
        per_voxel = format_seconds(self.seconds / prod(self.size))
        rows = [
            ("network", f"{self.name} ({', '.join(f'{key}={value}' for key, value in arguments.items())})"),
            ("parameters", f"{self.parameters:,}"),
            ("multiply-adds", f"{self.multiply_adds_per_voxel:,.10g} per voxel"),
            (
                "time",
                f"{per_voxel} per voxel, {format_seconds(self.seconds)} for {size} on {self.device} "
                f"(median of {self.repeats})",
            ),
            ("peak memory", memory),
            ("receptive field", str(field or "not measured: a pass with gradients does not fit into memory")),
        ]
        if field and field.farthest_offset:
            farthest = "×".join(f"{offset:.0f}" for offset in field.farthest_offset)
            rows.append(("offsets", f"up to {farthest} voxels from the centre"))
        return rows

    def to_dict(self) -> dict[str, object]:
        """All values, as printed by `farvox profile --json`."""
        field = self.receptive_field
        return {
            "name": self.name,
            **({"bundle": self.bundle} if self.bundle else {}),
            **self.arguments,
            "size": self.size,
            "device": self.device,
            "parameters": self.parameters,
            "multiply_adds_per_voxel": self.multiply_adds_per_voxel,
            "seconds_per_voxel": self.seconds / prod(self.size),
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "receptive_field": field and field.voxels,
            "receptive_field_truncated": field and field.truncated,
            "farthest_offset": field and field.farthest_offset,
            "has_global_normalization": field and field.has_global_normalization,
        }

    def __repr__(self) -> str:
        return f"Profile of {'; '.join(f'{name} {value}' for name, value in self.rows()[:6])}".replace("network ", "")

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.rows())
        return f"<table>{''.join(rows)}</table>"


def profile(
    model: PathLike | nn.Module,
    size: Shape | None = None,
    *,
    in_channels: int | None = None,
    classes: int | None = None,
    options: Mapping[str, object] | None = None,
    repeats: int = 5,
    device: str = "cpu",
) -> Profile:
    """Measure what a network costs: parameters, multiply-adds, time, memory and receptive field.

    >>> profile("unet2d", (32, 32, 3), repeats=1).multiply_adds_per_voxel
    38640.0

    Args:
        model: Name of a network, "package.module:function", the folder of a bundle, or a module.
        size: Voxels of the image along each axis; default: of the paper, or the patch size of a bundle.
        in_channels: Channels of the image; default: as in the paper. A module needs it.
        classes: Output classes, background included; default: as in the paper.
        options: Options of the network.
        repeats: Timed passes; the median is reported.
        device: As in `farvox.devices.resolve_device`.

    Raises:
        UsageError: A size below 1, or arguments with a bundle.
        ModelError: Unknown network or option.
        ResourceError: The image does not fit into memory.
    """
    import psutil
    import torch

    from farvox.devices import resolve_device
    from farvox.models import count_parameters, create_model, model_info
    from farvox.profiling import cost

    resolved, bundle, weights = resolve_device(device), None, None
    changes = {"in_channels": in_channels, "classes": classes}
    arguments = {**(options or {}), **{key: value for key, value in changes.items() if value is not None}}
    if isinstance(model, torch.nn.Module):
        if in_channels is None:
            raise UsageError("a module without its number of channels", hint="give in_channels")
        name, weights, default_size = type(model).__name__, model, (64, 64, 64)
    elif Path(model).is_dir():
        from farvox.bundle import load_bundle

        if arguments:
            raise UsageError("in_channels, classes or options with a bundle", allowed="the bundle alone")
        bundle = load_bundle(Path(model))
        entry, weights = bundle.manifest.model, bundle.network
        name, arguments = entry.name, {"in_channels": entry.in_channels, "classes": entry.classes, **entry.options}
        shape = bundle.manifest.inference.patch_size or bundle.manifest.preprocessing.shape
        default_size = shape or model_info(name).reference_size
    else:
        name = str(model)
        arguments = {**model_info(name).reference_arguments, **arguments}
        default_size = model_info(name).reference_size
    size = size or default_size
    if len(size) != 3 or min(size) < 1:
        raise UsageError(f"size {' '.join(map(str, size))}", allowed="three numbers of voxels, each at least 1")
    channels = int(str(arguments["in_channels"]))

    def make() -> nn.Module:
        if weights is not None:
            return copy.deepcopy(weights).to(torch.get_default_device())
        return create_model(name, **arguments)  # type: ignore[arg-type]

    free = psutil.virtual_memory().available if resolved.type != "cuda" else torch.cuda.mem_get_info(resolved)[0]
    try:
        # Checked first: initialising weights that do not fit takes long, and the system may kill the process.
        if cost.minimum_bytes(make, channels, size) > free:
            raise MemoryError
        products = cost.multiply_adds(make, channels, size)
        network = make().to(resolved).eval()
        timing = cost.measure_time_and_memory(network, channels, size, repeats)
        # A pass in float64 with gradients takes twice the bytes.
        fits = 2 * cost.activation_bytes(make, channels, size) < 0.6 * psutil.virtual_memory().available
        field = cost.measure_receptive_field(network, channels, size) if fits else None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "use a smaller size" + ("" if weights is not None else ", or options of a smaller network")
        raise ResourceError(
            f"{name} with an image of {'×'.join(map(str, size))} voxels does not fit into memory", hint=hint
        ) from None
    return Profile(
        name,
        arguments,
        size,
        str(resolved),
        count_parameters(network),
        round(products / prod(size), 2),
        timing.seconds,
        repeats,
        # Changes below 1 MiB happen in an idle process, too.
        round(timing.peak_bytes / 2**20, 1) if timing.peak_bytes >= 2**20 else None,
        field,
        str(model) if bundle else None,
    )


def format_seconds(seconds: float) -> str:
    """Three digits with the unit that suits: s, ms, µs or ns."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
