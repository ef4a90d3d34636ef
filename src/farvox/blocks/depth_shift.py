"""Depth-shift modules, and their insertion into any 2D network, which can then process volumes.

Maheshwari, Goel, Sethuraman and Sheet, "Distill DSM: Computationally Efficient Method for Segmentation of Medical
Imaging Volumes", MIDL 2021, after Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding",
ICCV 2019.

Details that the paper does not give: the convolutions of the distillation are initialised to the identity, so that the
module is initially a plain shift and hardly changes a pre-trained 2D network. Residual modules shift as many channels
as distilling ones: a quarter of the fraction α in each direction (for α = 1/2, the eighth of TSM).
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from farvox.errors import ModelError, suggest
from farvox.ops import depth_shift


class ResidualShift(nn.Module):
    """Adds channels of the neighbouring slices to the last channels of each slice; without parameters.

    Args:
        channels: Channels C of the maps.
        alpha: Fraction of the channels that take part, above 0 up to 1; ⌊⌊αC⌋ / 4⌋ come from each side.

    Raises:
        ModelError: An alpha out of range, or too small to shift one channel.
    """

    def __init__(self, channels: int, alpha: float = 0.5) -> None:
        super().__init__()
        _, self.each_way = _shifted_channels(channels, alpha)

    def forward(self, maps: torch.Tensor, slices: int) -> torch.Tensor:
        """(B·slices, C, I, J) → the same shape."""
        both = 2 * self.each_way
        unchanged, shifted = maps.split((maps.shape[1] - both, both), 1)
        return torch.cat((unchanged, shifted + depth_shift(shifted, slices, self.each_way, self.each_way)), 1)


class DistillShift(nn.Module):
    """Learned combinations of the last αC channels that stay, go to the next slice, and go to the previous slice.

    The paper's three convolutions, from αC channels to αC/2, αC/4 and αC/4, have the same input and are implemented as
    one.

    Args:
        channels: Channels C of the maps.
        alpha: Fraction of the channels that is distilled, above 0 up to 1: ⌊αC⌋, of which ⌊⌊αC⌋ / 4⌋ go in each
            direction.
        kernel: Odd kernel size of the convolutions, voxels.

    Raises:
        ModelError: An alpha out of range or too small to shift one channel, or an even kernel.
    """

    def __init__(self, channels: int, alpha: float = 0.5, kernel: int = 3) -> None:
        super().__init__()
        if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
            raise ModelError(f"kernel={kernel!r} of a depth shift", allowed="an odd number")
        self.n_distilled, self.each_way = _shifted_channels(channels, alpha)
        self.distill = nn.Conv2d(self.n_distilled, self.n_distilled, kernel, padding=kernel // 2)
        nn.init.dirac_(self.distill.weight)
        nn.init.zeros_(self.distill.bias)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor, slices: int) -> torch.Tensor:
        """(B·slices, C, I, J) → the same shape."""
        unchanged, shifted = maps.split((maps.shape[1] - self.n_distilled, self.n_distilled), 1)
        distilled = depth_shift(self.distill(shifted), slices, self.each_way, self.each_way)
        return torch.cat((unchanged, distilled), 1)


KINDS = ("distill", "residual")
"""Kinds of depth shifts for `insert_depth_shift`."""


class DepthShifted(nn.Module):
    """A 2D network with depth shifts between slices, which processes volumes; made by `insert_depth_shift`.

    State dictionaries of the plain 2D network fit into `network`. Several threads may call it at the same time. Modules
    of the 2D network may use activation checkpointing (`torch.utils.checkpoint`).

    Attributes:
        network: The 2D network; its batch are slices.
        sites: One module for each convolution that is followed by a shift.
    """

    def __init__(self, network: nn.Module, shifts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.network = network
        # Slices per volume by slices per batch, for checkpointed modules that run again after the call; 0: ambiguous.
        self._depths: dict[int, int] = {}
        self.sites: Iterable[_Site] = nn.ModuleList(  # type: ignore[assignment]
            _Site(*item, self._depths) for item in shifts.items()
        )
        for site in self.sites:
            # Hooks instead of wrappers around the convolutions keep the names of weights and attributes.
            network.get_submodule(site.name).register_forward_hook(site.shift_output)

    def forward(self, volume: torch.Tensor) -> Any:
        """(B, C, I, J, K) → the output of the 2D network, with K as the last axis of each of its tensors."""
        if volume.ndim != 5:
            raise ModelError(f"input of shape {tuple(volume.shape)}", allowed="volumes (B, C, I, J, K)")
        batch, slices = volume.shape[0], volume.shape[-1]
        if not torch.compiler.is_compiling():  # compiled code must not specialise on one size
            earlier = self._depths.setdefault(batch * slices, slices)
            if earlier != slices:
                self._depths[batch * slices] = 0
        outer = getattr(_call, "sizes", None)
        _call.sizes = batch, slices
        try:
            output = self.network(volume.movedim(-1, 1).flatten(0, 1))
        finally:
            _call.sizes = outer
        if isinstance(output, torch.Tensor) and not _by_slice(output, batch * slices):
            raise ModelError(
                f"{type(self.network).__name__} returns shape {tuple(output.shape)} for {batch * slices} slices",
                allowed="a 2D network whose output has the slices as its first axis",
            )
        return _to_volumes(output, batch, slices)


_call = threading.local()
"""`sizes` of the current call in each thread: volumes, and slices of each."""


def insert_depth_shift(
    network_2d: nn.Module,
    kind: str = "distill",
    alpha: float = 0.5,
    *,
    kernel: int = 3,
    every: int = 2,
    where: Callable[[str, nn.Conv2d], bool] | None = None,
) -> DepthShifted:
    """Make a 2D network process volumes and exchange features between neighbouring slices.

    Shifts are inserted directly after convolutions, before the norm or activation that follows. By default, they follow
    every second convolution, in the order of `named_modules`, starting with the first, among those that are larger than
    1×1 and have enough channels; the last convolution, which usually computes logits, is excluded. In a network of
    double convolutions that is the first of each pair, which agrees with the paper's parameter counts; its text
    describes `every=1`.

    After n consecutive shifts, the output of slice k depends on slices k − n to k + n. Slices outside of the volume are
    zero. For volumes of equal slices, the output at distance n from the ends equals that of the 2D network (kind
    "distill").

    Args:
        network_2d: Receives (N, C, I, J), processes the N images independently, and each of its `nn.Conv2d` returns
            (N, ·, ·, ·). It is copied with its weights and not changed.
        kind: "distill" or "residual".
        alpha: Fraction of each map's channels that take part, above 0 up to 1.
        kernel: Odd kernel size of the distilling convolutions, voxels.
        every: 1: a shift after each eligible convolution, 2: after every second, and so on.
        where: Function of name and convolution that returns whether a shift follows it; replaces the default rule.

    Returns:
        Network that receives (B, C, I, J, K) and returns tensors with K as the last axis. I and J are limited by the 2D
        network; K is arbitrary. Outputs that are lists, (named) tuples, dictionaries or dataclasses keep their type;
        each tensor in them with B·K slices as its first axis becomes a volume; anything else is passed through.

    Raises:
        ModelError: Not a module, unknown kind, alpha, kernel or every out of range, no eligible convolution, or one
            selected by `where` that has too few channels. When called: a convolution whose batch are not the slices,
            or an output without them; in a backward pass: a checkpointed module whose depth is ambiguous, because
            batches of as many slices had volumes of different depth.
    """
    if not isinstance(network_2d, nn.Module):
        raise ModelError(f"a depth shift in {type(network_2d).__name__}", allowed="a torch.nn.Module")
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r} of a depth shift", allowed=" or ".join(KINDS), hint=suggest(str(kind), KINDS))
    if type(every) is not int or every < 1:
        raise ModelError(f"every={every!r}", allowed="a whole number of at least 1")
    _check_fraction(alpha)
    network = copy.deepcopy(network_2d)
    convolutions = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    plain = [(name, module) for name, module in convolutions if isinstance(module, nn.Conv2d)]
    if where is not None:
        selected = [(name, conv) for name, conv in plain if where(name, conv)]
    else:
        wide = [
            (name, conv)
            for name, conv in plain
            if max(conv.kernel_size) > 1 and int(alpha * conv.out_channels) >= 4 and conv is not convolutions[-1][1]
        ]
        selected = wide[::every]
    if not selected:
        raise ModelError(
            f"{type(network_2d).__name__} has no convolution that a depth shift could follow",
            allowed=f"2D convolutions larger than 1×1 with {round(4 / alpha)} channels or more for alpha={alpha}",
        )
    shifts: dict[str, nn.Module] = {}
    for name, conv in selected:
        try:
            shift = (
                DistillShift(conv.out_channels, alpha, kernel)
                if kind == "distill"
                else ResidualShift(conv.out_channels, alpha)
            )
        except ModelError as error:
            raise ModelError(f"{name}: {error.found}", allowed=error.allowed, hint=error.hint) from None
        shifts[name] = shift.to(conv.weight.device, conv.weight.dtype)
    return DepthShifted(network, shifts).train(network_2d.training)


class _Site(nn.Module):
    """The shift after one convolution; the current call defines the number of slices per volume."""

    def __init__(self, name: str, shift: nn.Module, depths: dict[int, int]) -> None:
        super().__init__()
        self.name, self.shift, self._depths = name, shift, depths

    def shift_output(self, _conv: nn.Module, _inputs: Any, maps: torch.Tensor) -> torch.Tensor:
        sizes = getattr(_call, "sizes", None)
        if sizes is None:
            # The backward pass repeats checkpointed layers, possibly in another thread.
            slices = self._depths.get(len(maps), 1)
            if slices == 0:
                raise ModelError(
                    f"'{self.name}' repeats {len(maps)} slices of volumes of unknown depth",
                    allowed="one depth for each number of slices in a batch, if layers are checkpointed",
                    hint="use one depth, or checkpoint the whole network",
                )
            sizes = len(maps) // slices, slices
        batch, slices = sizes
        if maps.ndim != 4 or maps.shape[0] != batch * slices:
            raise ModelError(
                f"'{self.name}' returns maps of shape {tuple(maps.shape)} for {batch * slices} slices",
                allowed="slices as the first of four axes at every convolution followed by a depth shift",
                hint="exclude it with where=",
            )
        return self.shift(maps, slices)


def _by_slice(output: torch.Tensor, slices: int) -> bool:
    return output.ndim > 0 and output.shape[0] == slices


def _to_volumes(output: Any, batch: int, slices: int) -> Any:
    """(B·K, ...) → (B, ..., K) for a tensor, or for each one in lists, tuples, dictionaries and dataclasses."""

    def change(item: Any) -> Any:
        return _to_volumes(item, batch, slices)

    if isinstance(output, torch.Tensor):
        return output.unflatten(0, (batch, slices)).movedim(1, -1) if _by_slice(output, batch * slices) else output
    if type(output) is dict:
        return {key: change(value) for key, value in output.items()}
    if isinstance(output, dict):
        changed: Any = copy.copy(output)  # keeps order and default factory
        for key, value in output.items():
            changed[key] = change(value)
        return changed
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        changed = copy.copy(output)
        for field in dataclasses.fields(output):
            object.__setattr__(changed, field.name, change(getattr(output, field.name)))  # frozen ones too
        return changed
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*map(change, output))
    if isinstance(output, (list, tuple)):
        return type(output)([change(value) for value in output])
    return output


def _check_fraction(alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha <= 1:
        raise ModelError(f"alpha={alpha!r} of a depth shift", allowed="a fraction above 0 up to 1")


def _shifted_channels(channels: int, alpha: float) -> tuple[int, int]:
    """Channels that take part, and those that go in each direction."""
    _check_fraction(alpha)
    affected = int(alpha * channels + 1e-6)  # 0.3 · 10 is not quite 3
    if affected < 4:
        raise ModelError(
            f"{channels} channels are too few for a depth shift with alpha={alpha}",
            allowed="alpha · channels of 4 or more, so that one channel is shifted in each direction",
        )
    return affected, affected // 4
