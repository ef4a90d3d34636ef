"""Networks by name: register, list, build and check them; listing imports no torch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, TypeVar

from farvox._plugins import Registry
from farvox.errors import ModelError, suggest

if TYPE_CHECKING:
    from torch import nn

    from farvox.types import Shape

    Builder = TypeVar("Builder", bound=Callable[..., nn.Module])
    PlanOptions = Callable[[Sequence[float], Mapping[str, object]], dict[str, object]]

_INDEX = resources.files("farvox.models") / "index.json"
"""Information on the shipped networks from their decorators; `python -m farvox.models` writes it."""


@dataclass(frozen=True)
class ModelInfo:
    """Information about a network that is known without building it.

    Args:
        builder: "module:function" that builds it.
        paper: Where it was published.
        parameters: Trainable values, offsets included, with `reference_arguments`; 0: unknown.
        reference_arguments: Arguments of `create_model` that give this number.
        dims: 3 if the network receives whole volumes, 2 if it receives slices along K one by one.
        input_requirements: Image sizes and numbers of channels that it accepts.
        multiply_adds: Multiply-adds per voxel of one pass, with `reference_arguments`, on an image of
            `reference_size`; see `farvox.profiling.cost` for what is counted. 0: unknown.
        reference_size: Voxels along each axis.
        min_size: Smallest number of voxels along each axis.
        licence: Licence of the implementation.
        note: What to know before choosing it.
        points: Whether it is a `farvox.models.PointNetwork`, which predicts single points.
    """

    builder: str
    paper: str = ""
    parameters: int = 0
    reference_arguments: Mapping[str, object] = field(default_factory=lambda: {"in_channels": 1, "classes": 2})
    dims: int = 3
    input_requirements: str = "any size, any channels"
    multiply_adds: int = 0
    reference_size: Shape = (64, 64, 64)
    min_size: Shape = (1, 1, 1)
    licence: str = "Apache-2.0"
    note: str = ""
    points: bool = False


_builders: dict[str, Callable[..., Any]] = {}
"""Builders by "module:function", those of notebooks, which cannot be imported, included."""
_plans: dict[str, PlanOptions] = {}


def _register_builder(path: str, build: Any) -> ModelInfo:
    if not callable(build):
        raise ModelError(f"'{path}' is not a function that builds a network")
    _builders[path] = build
    return next((info for info in _REGISTRY.items.values() if info.builder == path), ModelInfo(path))


_REGISTRY: Registry[ModelInfo] = Registry("network", "farvox.models", ModelError, _register_builder)
if _INDEX.is_file():
    _REGISTRY.items |= {
        name: ModelInfo(**(info | {key: tuple(info[key]) for key in ("reference_size", "min_size")}))
        for name, info in json.loads(_INDEX.read_text(encoding="utf-8")).items()
    }


def register_model(
    name: str,
    *,
    paper: str = "",
    parameters: int = 0,
    reference_arguments: Mapping[str, object] | None = None,
    dims: int = 3,
    input_requirements: str = "any size, any channels",
    multiply_adds: int = 0,
    reference_size: Shape = (64, 64, 64),
    min_size: Shape = (1, 1, 1),
    licence: str = "Apache-2.0",
    note: str = "",
    points: bool = False,
    builder: str = "",
    plan_options: PlanOptions | None = None,
) -> Callable[[Builder], Builder]:
    """Decorate a function `build(in_channels, classes, **options)` so that its network can be created by name.

    The network turns (B, in_channels, I, J, K) into logits (B, classes, I, J, K). Installed packages can provide
    networks as entry points of the group `farvox.models`. Further properties belong to the network object:

    * the methods of `PointNetwork`: it can be trained and evaluated at points;
    * a method `set_training_progress(fraction)`, called before each training step with 0 to 1: it may freeze weights;
    * an attribute `size_dependent = True`: the output depends on the size of the image, so that prediction uses
      windows as large as the patches in training.

    >>> import torch
    >>> @register_model("one-convolution", paper="unpublished")
    ... def build(in_channels, classes, kernel=3):
    ...     return torch.nn.Conv3d(in_channels, classes, kernel, padding="same")
    >>> create_model("one-convolution", 1, 2, kernel=1)
    Conv3d(1, 2, kernel_size=(1, 1, 1), stride=(1, 1, 1), padding=same)

    Args:
        name: Not yet used by another network.
        paper: This and the further arguments: see `ModelInfo`.
        builder: "module:attribute" where the function is found, if not under its own name.
        plan_options: Function of the voxel spacing (mm) and the recipe's options that returns all options; training
            calls it before it builds the network.

    Raises:
        ModelError: The name is in use.
    """

    def register(build: Builder) -> Builder:
        path = builder or f"{build.__module__}:{build.__qualname__}"
        arguments = dict(reference_arguments or {"in_channels": 1, "classes": 2})
        sizes = (input_requirements, multiply_adds, reference_size, min_size)
        info = ModelInfo(path, paper, parameters, arguments, dims, *sizes, licence, note, points)
        _REGISTRY.add(name, info, lambda old: old.builder == path)
        _builders[path] = build
        if plan_options:
            _plans[path] = plan_options
        return build

    return register


def list_models() -> list[str]:
    """Names of the networks that `create_model` builds, sorted.

    >>> "unet3d" in list_models()
    True
    """
    return _REGISTRY.names()


def is_registered(name: str) -> bool:
    """Whether a network is shipped, registered in this process, or provided as an entry point."""
    builders = (info.builder for info in _REGISTRY.items.values())
    return name in _REGISTRY.names() or name in builders


def imports_code(name: str) -> bool:
    """Whether `create_model(name)` would import a module only because the name says so: "package.module:function"."""
    return ":" in name and not is_registered(name)


def model_info(name: str) -> ModelInfo:
    """Information about a network: a name out of `list_models()`, or "package.module:function".

    >>> model_info("unet2d").parameters
    1082211

    Raises:
        ModelError: Unknown name.
    """
    return _REGISTRY.get(name if isinstance(name, str) else str(name))


def create_model(name: str, in_channels: int = 1, classes: int = 2, **options: object) -> nn.Module:
    """Build a network with random weights.

    >>> import torch
    >>> network = create_model("unet3d", in_channels=1, classes=3, widths=[4, 8])
    >>> network(torch.zeros(1, 1, 8, 8, 8)).shape
    torch.Size([1, 3, 8, 8, 8])

    Args:
        name: One of `list_models()`, or "package.module:function" of an own builder.
        in_channels: Channels of the image, at least 1.
        classes: Output classes, background included, at least 2.
        **options: Options of the network; its builder documents them.

    Returns:
        Module that turns (B, in_channels, I, J, K) into logits (B, classes, I, J, K) of the same size.

    Raises:
        ModelError: Unknown name or option, or a value out of range.
    """
    build = _builder(name)
    for what, value, minimum in (("in_channels", in_channels, 1), ("classes", classes, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ModelError(f"{what}={value!r} for '{name}'", allowed=f"a whole number of at least {minimum}")
    signature = inspect.signature(build)
    names = [option for option in signature.parameters if option not in ("in_channels", "classes")]
    for option in options:
        if option not in names and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            hint = suggest(option, names) if names else "leave it out"
            raise ModelError(f"'{name}' has no option '{option}'", hint=hint)
    try:
        signature.bind(in_channels=in_channels, classes=classes, **options)
    except TypeError as error:
        raise ModelError(
            f"the builder of '{name}': {error}", allowed="build(in_channels, classes, **options)"
        ) from None
    network: nn.Module = build(in_channels=in_channels, classes=classes, **options)
    return network


def plan_options(name: str, options: Mapping[str, object], spacing: Sequence[float]) -> dict[str, object]:
    """Complete a network's options for scans of this voxel spacing (mm); most networks return them unchanged."""
    _builder(name)
    plan = _plans.get(model_info(name).builder)
    return plan(spacing, options) if plan else dict(options)


def create_on_meta(name: str, options: Mapping[str, object]) -> nn.Module:
    """Build a network without memory for its weights, to read its properties before training."""
    import torch

    with torch.device("meta"):
        return create_model(name, 1, 2, **options)


def check_network(network: nn.Module, in_channels: int, classes: int, size: Shape = (16, 16, 16)) -> None:
    """Run an own network once on a small random image, in eval mode, to find mistakes before training.

    Args:
        network: Its mode and weights are left as they were.
        in_channels: Channels of the image.
        classes: Output classes, background included.
        size: Voxels along each axis.

    Raises:
        ModelError: It fails, or its output is not (1, classes, *size).
    """
    import torch

    training, name = network.training, type(network).__name__
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    image = torch.zeros(1, in_channels, *size, device=device)
    try:
        with torch.inference_mode():
            logits = network.eval()(image)
    except Exception as error:
        message = f"{name} fails on an image {tuple(image.shape)}: {type(error).__name__}: {error}"
        raise ModelError(message, hint="a network takes (B, channels, I, J, K) of any size") from error
    finally:
        network.train(training)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, classes, *size):
        expected = f"logits {(1, classes, *size)}: (B, classes, I, J, K)"
        raise ModelError(f"{name} returns {shape} for an image {tuple(image.shape)}", allowed=expected)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values, learned offsets included."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def validate_dropout(dropout: object, network: str) -> float:
    """Check a fraction of values that are set to zero in training.

    Raises:
        ModelError: Not a number from 0 to below 1.
    """
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ModelError(f"dropout={dropout!r} for '{network}'", allowed="0 to below 1")
    return float(dropout)


def _builder(name: str) -> Callable[..., Any]:
    path = model_info(name).builder
    if path not in _builders:
        module, _, function = path.partition(":")
        _builders[path] = getattr(import_module(module), function)
    return _builders[path]
