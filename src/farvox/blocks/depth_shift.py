"""Depth-shift modules, and how to insert them into any 2D network so that it takes volumes.

Maheshwari, Goel, Sethuraman and Sheet, "Distill DSM: Computationally Efficient Method for Segmentation of Medical
Imaging Volumes", MIDL 2021, after Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding",
ICCV 2019.

Where the paper is silent: a convolution of the distillation starts as the identity, so that what goes over to
neighbours is at first a plain shift, and a trained 2D network keeps most of what it knows. Residual modules move as
many channels as distilling ones, a quarter of the share each way (with a share of one half, the eighth that TSM moves).
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
    """Adds channels of the neighbouring slices to the last channels of each slice; nothing to learn.

    Args:
        channels: Channels C of the maps.
        alpha: Share of the channels at stake, above 0 up to 1; ⌊⌊αC⌋ / 4⌋ come from each side.

    Raises:
        ModelError: A share outside its range, or too small to hand on even one channel.
    """

    def __init__(self, channels: int, alpha: float = 0.5) -> None:
        super().__init__()
        _, self.each_way = _shares(channels, alpha)

    def forward(self, maps: torch.Tensor, slices: int) -> torch.Tensor:
        """(B·slices, C, I, J) → the same shape."""
        both = 2 * self.each_way
        own, shared = maps.split((maps.shape[1] - both, both), 1)
        return torch.cat((own, shared + depth_shift(shared, slices, self.each_way, self.each_way)), 1)


class DistillShift(nn.Module):
    """Learns what of the last αC channels each slice keeps, hands forward and hands backward.

    The paper's three convolutions, from αC channels to αC/2, αC/4 and αC/4, read the same maps and are held as one.

    Args:
        channels: Channels C of the maps.
        alpha: Share of the channels that is distilled, above 0 up to 1; ⌊αC⌋ are, of which ⌊⌊αC⌋ / 4⌋ go each way.
        kernel: Odd kernel size of the convolutions, voxels.

    Raises:
        ModelError: A share outside its range or too small to hand on even one channel, or an even kernel.
    """

    def __init__(self, channels: int, alpha: float = 0.5, kernel: int = 3) -> None:
        super().__init__()
        if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
            raise ModelError(f"kernel={kernel!r} of a depth shift", allowed="an odd number")
        self.shared, self.each_way = _shares(channels, alpha)
        self.distill = nn.Conv2d(self.shared, self.shared, kernel, padding=kernel // 2)
        nn.init.dirac_(self.distill.weight)
        nn.init.zeros_(self.distill.bias)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor, slices: int) -> torch.Tensor:
        """(B·slices, C, I, J) → the same shape."""
        own, shared = maps.split((maps.shape[1] - self.shared, self.shared), 1)
        distilled = depth_shift(self.distill(shared), slices, self.each_way, self.each_way)
        return torch.cat((own, distilled), 1)


KINDS = ("distill", "residual")
"""Kinds `insert_depth_shift` knows."""


class DepthShifted(nn.Module):
    """A 2D network that takes volumes, its slices in touch through depth shifts; made by `insert_depth_shift`.

    Weights of the plain 2D network still fit into `network`, under their old names. Threads may call it side by side.
    Parts of the 2D network may recompute themselves in the backward pass (`torch.utils.checkpoint`).

    Attributes:
        network: The 2D network, slices as its batch.
        sites: One module for each convolution that is followed by a shift.
    """

    def __init__(self, network: nn.Module, shifts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.network = network
        # Slices of a volume by those of a whole batch, for what is computed again when the call is over; 0: two depths.
        self._depths: dict[int, int] = {}
        self.sites: Iterable[_Site] = nn.ModuleList(  # type: ignore[assignment]
            _Site(*item, self._depths) for item in shifts.items()
        )
        for site in self.sites:
            # Hooks rather than wrappers in the convolutions' places: names of weights and whatever the network
            # asks of its convolutions stay as they are.
            network.get_submodule(site.name).register_forward_hook(site.shift_output)

    def forward(self, volume: torch.Tensor) -> Any:
        """(B, C, I, J, K) → what the 2D network answers, with K as the last axis of each tensor of it."""
        if volume.ndim != 5:
            raise ModelError(f"input of shape {tuple(volume.shape)}", allowed="volumes (B, C, I, J, K)")
        batch, slices = volume.shape[0], volume.shape[-1]
        if not torch.compiler.is_compiling():  # compiled code knows its sizes, and must not be tied to one of them
            known = self._depths.setdefault(batch * slices, slices)
            if known != slices:
                self._depths[batch * slices] = 0
        outer = getattr(_call, "sizes", None)
        _call.sizes = batch, slices
        try:
            found = self.network(volume.movedim(-1, 1).flatten(0, 1))
        finally:
            _call.sizes = outer
        if isinstance(found, torch.Tensor) and not _by_slice(found, batch * slices):
            raise ModelError(
                f"{type(self.network).__name__} answers with shape {tuple(found.shape)} for {batch * slices} slices",
                allowed="a 2D network whose answer has the slices as its first axis",
            )
        return _to_volumes(found, batch, slices)


_call = threading.local()
"""`sizes` of the call that each thread is in: volumes, and slices of each."""


def insert_depth_shift(
    network_2d: nn.Module,
    kind: str = "distill",
    alpha: float = 0.5,
    *,
    kernel: int = 3,
    every: int = 2,
    where: Callable[[str, nn.Conv2d], bool] | None = None,
) -> DepthShifted:
    """Let a 2D network take volumes and share features between neighbouring slices.

    A shift is put right after convolutions, before whatever norm or activation follows. Which ones cannot be known of
    a network at large. Unless `where` says, they are every second one, in the order the network holds them and
    beginning with the first, of the convolutions larger than 1×1 and wide enough to share a channel; the network's
    last convolution, which as a rule gives the scores, is left out. In a network of double convolutions that is the
    first of each pair: the reading of the paper that agrees with its parameter counts. `every=1` is its text.

    After n shifts one behind the other, slice k sees slices k − n to k + n. Beyond both ends of a volume lie zeros.
    Volumes made of equal slices get, at distance n from the ends, what the 2D network gives (kind "distill").

    Args:
        network_2d: Takes (N, C, I, J), treats the N images alike, and hands (N, ·, ·, ·) from each `nn.Conv2d` to what
            follows. It is copied with its weights and left as it was.
        kind: "distill" or "residual".
        alpha: Share of each map's channels at stake, above 0 up to 1.
        kernel: Odd kernel size of the distilling convolutions, voxels.
        every: 1 for a shift after each eligible convolution, 2 for every second, and so on.
        where: Told the name and the convolution, says whether a shift follows it; takes the place of the rule above.

    Returns:
        Network that takes (B, C, I, J, K) and answers with K as the last axis. I and J are bound by what the 2D
        network takes; K is free. An answer of lists, (named) tuples, dictionaries or dataclasses keeps its type, and
        each tensor in it whose first axis counts the B·K slices becomes a volume; what else is in it is handed on.

    Raises:
        ModelError: Not a module, unknown kind, impossible alpha, kernel or every, no convolution to shift after, or one
            chosen by `where` that has too few channels. When called: a convolution that does not see the slices as its
            batch, or an answer without them; in a backward pass: a checkpointed part whose depth is not known any more,
            because batches of as many slices had volumes of different depth.
    """
    if not isinstance(network_2d, nn.Module):
        raise ModelError(f"a depth shift in {type(network_2d).__name__}", allowed="a torch.nn.Module")
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r} of a depth shift", allowed=" or ".join(KINDS), hint=suggest(str(kind), KINDS))
    if type(every) is not int or every < 1:
        raise ModelError(f"every={every!r}", allowed="a whole number of at least 1")
    _check_share(alpha)
    network = copy.deepcopy(network_2d)
    held = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    plain = [(name, module) for name, module in held if isinstance(module, nn.Conv2d)]
    if where is not None:
        chosen = [(name, conv) for name, conv in plain if where(name, conv)]
    else:
        wide = [
            (name, conv)
            for name, conv in plain
            if max(conv.kernel_size) > 1 and int(alpha * conv.out_channels) >= 4 and conv is not held[-1][1]
        ]
        chosen = wide[::every]
    if not chosen:
        raise ModelError(
            f"nothing in {type(network_2d).__name__} to put a depth shift after",
            allowed=f"2D convolutions larger than 1×1 with {round(4 / alpha)} channels or more for alpha={alpha}",
        )
    shifts: dict[str, nn.Module] = {}
    for name, conv in chosen:
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
    """The shift after one convolution; asks the call it is in how many slices a volume has."""

    def __init__(self, name: str, shift: nn.Module, depths: dict[int, int]) -> None:
        super().__init__()
        self.name, self.shift, self._depths = name, shift, depths

    def shift_output(self, _conv: nn.Module, _inputs: Any, maps: torch.Tensor) -> torch.Tensor:
        sizes = getattr(_call, "sizes", None)
        if sizes is None:
            # Checkpointed layers are computed again by the backward pass, perhaps in a thread of its own.
            slices = self._depths.get(len(maps), 1)
            if slices == 0:
                raise ModelError(
                    f"'{self.name}' computes {len(maps)} slices again, in volumes of which depth is unknown",
                    allowed="one depth for each number of slices in a batch, where layers are checkpointed",
                    hint="call with one depth, or checkpoint the network as a whole",
                )
            sizes = len(maps) // slices, slices
        batch, slices = sizes
        if maps.ndim != 4 or maps.shape[0] != batch * slices:
            raise ModelError(
                f"'{self.name}' gives maps of shape {tuple(maps.shape)} for {batch * slices} slices",
                allowed="slices as the first of four axes at every convolution followed by a depth shift",
                hint="leave it out with where=",
            )
        return self.shift(maps, slices)


def _by_slice(found: torch.Tensor, slices: int) -> bool:
    return found.ndim > 0 and found.shape[0] == slices


def _to_volumes(found: Any, batch: int, slices: int) -> Any:
    """(B·K, ...) → (B, ..., K) for a tensor, or for each one in lists, tuples, dictionaries and dataclasses."""

    def change(part: Any) -> Any:
        return _to_volumes(part, batch, slices)

    if isinstance(found, torch.Tensor):
        return found.unflatten(0, (batch, slices)).movedim(1, -1) if _by_slice(found, batch * slices) else found
    if type(found) is dict:
        return {key: change(value) for key, value in found.items()}
    if isinstance(found, dict):
        changed: Any = copy.copy(found)  # whatever else an ordered or defaulting dictionary holds
        for key, value in found.items():
            changed[key] = change(value)
        return changed
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        changed = copy.copy(found)
        for field in dataclasses.fields(found):
            object.__setattr__(changed, field.name, change(getattr(found, field.name)))  # frozen ones too
        return changed
    if isinstance(found, tuple) and hasattr(found, "_fields"):
        return type(found)(*map(change, found))
    if isinstance(found, (list, tuple)):
        return type(found)([change(value) for value in found])
    return found


def _check_share(alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha <= 1:
        raise ModelError(f"alpha={alpha!r} of a depth shift", allowed="a share above 0 up to 1")


def _shares(channels: int, alpha: float) -> tuple[int, int]:
    """Channels at stake, and those that go each way."""
    _check_share(alpha)
    shared = int(alpha * channels + 1e-6)  # 0.3 · 10 is not quite 3
    if shared < 4:
        raise ModelError(
            f"{channels} channels are too few for a depth shift with alpha={alpha}",
            allowed="alpha · channels of 4 or more, so that a channel goes each way",
        )
    return shared, shared // 4
