"""`farvox profile`: what a network costs and how far it sees, measured here and now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farvox.cli.common import DeviceOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from farvox.profiling.cost import ReceptiveField
    from farvox.types import Shape

# torch has no class of its own for a CPU without memory, nor for more bytes than can be counted.
_NO_MEMORY = ("out of memory", "can't allocate memory", "size calculation overflowed")


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A network of `farvox models`, or a bundle folder.")],
    size: Annotated[
        tuple[int, int, int] | None, typer.Option("--size", metavar="I J K", help="Voxels of the image.")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="Of the image (default: the paper's).")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="With background (default: the paper's).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the network.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed passes; their median counts.")] = 5,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Parameters, multiply-adds and seconds per voxel, peak memory and receptive field of a network."""
    from farvox.cli.common import print_json
    from farvox.devices import resolve_device
    from farvox.errors import ResourceError, UsageError

    place = resolve_device(device)
    make, facts = _network(name, channels, classes, settings or [])
    shape = size or facts.pop("size")
    if min(shape) < 1:
        raise UsageError(f"--size {' '.join(map(str, shape))}", allowed="three sizes of at least 1")
    try:
        figures, reach = _measure(make, facts["in_channels"], shape, place, repeats)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        hint = "give a smaller --size" + ("" if "bundle" in facts else ", or a smaller network with --set")
        raise ResourceError(
            f"{name} with an image of {'×'.join(map(str, shape))} voxels does not fit into memory", hint=hint
        ) from None
    given = {key: value for key, value in facts.items() if key != "size"}
    document = {**given, "size": shape, "device": str(place), **figures}
    if as_json:
        print_json(document)
    else:
        _show(document, shape, repeats, reach)


def _measure(
    make: Callable[[], nn.Module], inputs: int, shape: Shape, place: torch.device, repeats: int
) -> tuple[dict[str, Any], ReceptiveField | None]:
    import psutil
    import torch

    from farvox.models import count_parameters
    from farvox.profiling import cost

    free = psutil.virtual_memory().available if place.type != "cuda" else torch.cuda.mem_get_info(place)[0]
    # Before anything is built: filling weights that do not fit takes long, and may end the process without a word.
    if cost.minimum_bytes(make, inputs, shape) > free:
        raise MemoryError
    voxels = shape[0] * shape[1] * shape[2]
    products = cost.multiply_adds(make, inputs, shape)
    network = make().to(place).eval()
    speed = cost.measure_time_and_memory(network, inputs, shape, repeats)
    # A pass in float64 with gradients: twice the bytes.
    fits = 2 * cost.activation_bytes(make, inputs, shape) < 0.6 * psutil.virtual_memory().available
    reach = cost.measure_receptive_field(network, inputs, shape) if fits else None
    return {
        "parameters": count_parameters(network),
        "multiply_adds_per_voxel": round(products / voxels, 2),
        "seconds_per_voxel": speed.seconds / voxels,
        "seconds": speed.seconds,
        # What is not seen is not known to be nothing.
        # Below a MiB it is the process's own stirring.
        "peak_memory_mb": round(speed.peak_bytes / 2**20, 1) if speed.peak_bytes >= 2**20 else None,
        "receptive_field": reach and reach.voxels,
        "receptive_field_cut_by_size": reach and reach.cut,
        "farthest_offset": reach and reach.offsets,
        "statistics_over_the_image": reach and reach.statistics,
    }, reach


def _network(
    name: str, channels: int | None, classes: int | None, settings: list[str]
) -> tuple[Callable[[], nn.Module], dict[str, Any]]:
    """What builds the network, and what it is built with."""
    from farvox.errors import UsageError
    from farvox.models import create_model, model_info

    if Path(name).is_dir():
        from farvox.bundle import load_bundle

        if channels is not None or classes is not None or settings:
            raise UsageError(
                "--channels, --classes or --set with a bundle", allowed="a bundle alone, which holds its own"
            )
        bundle = load_bundle(name)
        entry, preprocessing = bundle.manifest.model, bundle.manifest.preprocessing
        given = {"in_channels": entry.in_channels, "classes": entry.classes, **entry.options}
        size = bundle.manifest.window or preprocessing.shape or model_info(entry.name).reference_size

        def trained() -> nn.Module:
            import torch

            network = create_model(entry.name, **given)
            # On the meta device there are no values to fill in.
            if torch.get_default_device().type != "meta":
                network.load_state_dict(bundle.network.state_dict())
            return network

        return trained, {"name": entry.name, "bundle": name, **given, "size": size}
    facts = model_info(name)
    given = {**facts.reference_arguments, **_options(settings)}
    given |= {key: value for key, value in (("in_channels", channels), ("classes", classes)) if value is not None}
    return lambda: create_model(name, **given), {"name": name, **given, "size": facts.reference_size}


def _options(settings: list[str]) -> dict[str, Any]:
    from farvox.errors import UsageError
    from farvox.recipes import parse_toml_value

    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip() or key.strip() in ("in_channels", "classes"):
            raise UsageError(f"--set {setting}", allowed="option=value, such as --set 'widths=[8, 16]'")
        options[key.strip()] = parse_toml_value(text)
    return options


def _show(document: dict[str, Any], size: Shape, repeats: int, reach: ReceptiveField | None) -> None:
    shown = "×".join(map(str, size))
    skip = ("name", "size", "device")
    given = [(key, value) for key, value in document.items() if key not in skip]
    given = given[: [key for key, _ in given].index("parameters")]
    lines = [
        ("network", f"{document['name']} ({', '.join(f'{key}={value}' for key, value in given)})"),
        ("parameters", f"{document['parameters']:,}"),
        ("multiply-adds", f"{document['multiply_adds_per_voxel']:,.10g} per voxel"),
        (
            "time",
            f"{_quantity(document['seconds_per_voxel'])} per voxel, {_quantity(document['seconds'])} for {shown} "
            f"on {document['device']} (median of {repeats})",
        ),
        ("peak memory", _memory(document["peak_memory_mb"])),
        ("receptive field", _field(reach)),
    ]
    if reach and reach.offsets:
        lines.append(("offsets", f"reach up to {'×'.join(f'{o:.0f}' for o in reach.offsets)} voxels, as they are now"))
    for what, text in lines:
        typer.echo(f"{what:16} {text}")


def _memory(megabytes: float | None) -> str:
    return f"{megabytes:,.1f} MB above idle" if megabytes else "too little to see; give a larger --size"


def _field(reach: ReceptiveField | None) -> str:
    if reach is None:
        return "not measured: a pass with gradients does not fit into memory; give a smaller --size"
    text = "×".join(f"{n}{'+' if cut else ''}" for n, cut in zip(reach.voxels, reach.cut, strict=True)) + " voxels"
    if any(reach.cut):
        text += " (+ reaches the end of the image)"
    return text + ("; through its normalisation, faintly, the whole image" if reach.statistics else "")


def _quantity(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
