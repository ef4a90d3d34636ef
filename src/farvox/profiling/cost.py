"""What a network costs and how far it sees: multiply-adds, seconds, memory, receptive field."""

from __future__ import annotations

import copy
import gc
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from farvox.devices import peak_memory_mb, reset_peak_memory
from farvox.types import Shape

_CORNERS = {2: 4, 3: 8}
"""Neighbours that linear interpolation weighs, by dimensions."""
_STATISTICS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm)
_DRAWS = 3


@dataclass(frozen=True)
class ReceptiveField:
    """How far a network sees.

    Args:
        voxels: Extent along each axis of the input voxels that the answer at the central voxel depends on.
        cut: Whether that reaches an end of the image along each axis, so that it might be longer on a larger one.
        offsets: Farthest that a learned offset points, voxels along each axis; None without offsets.
        statistics: Whether there is normalisation over the image, which the measurement leaves out: through it every
            answer depends a little on the whole image.
    """

    voxels: Shape
    cut: tuple[bool, bool, bool]
    offsets: tuple[float, float, float] | None
    statistics: bool


@dataclass(frozen=True)
class Timing:
    """Seconds of one pass without gradients (median), and the most memory held above what was held before, bytes.

    On a CPU the bytes are 0 where a pass fits into memory that the process held already.
    """

    seconds: float
    peak_bytes: int


def multiply_adds(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Multiply-adds of one pass over an image of `size`; nothing is computed, so any size is quick.

    Counted are convolutions, matrix products and sparse sampling: a linear interpolation is one multiply-add for each
    corner, 8 for a volume, for every channel, offset and output, twice that for pairs; then the products with the
    weights. Not counted, as in the papers: normalisation, activations, pooling, enlarging, and additions of maps.

    Args:
        make: Builds the network; called with torch's meta device.
        in_channels: Channels of the image.
        size: Voxels along each axis.
    """
    network, image = _on_meta_device(make, in_channels, size)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    # With gradients, so that blocks go their plain way and not one that is rewritten for inference.
    with torch.enable_grad(), counter:
        network(image)
    return counter.get_total_flops() // 2


def minimum_bytes(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Bytes that no pass does without: weights, image and answer in float32; nothing is computed.

    Args:
        make: Builds the network; called with torch's meta device.
        in_channels: Channels of the image.
        size: Voxels along each axis.
    """
    network, image = _on_meta_device(make, in_channels, size)
    with torch.enable_grad():
        answer = network(image)
    return sum(t.numel() * t.element_size() for t in (*network.state_dict().values(), image, answer))


def measure_time_and_memory(network: nn.Module, in_channels: int, size: Shape, repeats: int = 5) -> Timing:
    """Time and memory of passes over one image, on the device the network is on.

    On a CPU the memory is that of the process, as the system counts it (Linux) or looked at every millisecond. A pass
    over a small image comes first, in which libraries set themselves up and compile.

    Args:
        network: In eval mode.
        in_channels: Channels of the image.
        size: Voxels along each axis.
        repeats: Passes the median is taken over.
    """
    device = next(network.parameters()).device
    gc.collect()
    with torch.inference_mode():
        network(torch.randn(1, in_channels, *(min(n, 16) for n in size), device=device))
    with torch.inference_mode(), _Watch(device) as watch:
        image = torch.randn(1, in_channels, *size, device=device)
        network(image)
        seconds = []
        for _ in range(repeats):
            _finish(device)
            started = time.perf_counter()
            network(image)
            _finish(device)
            seconds.append(time.perf_counter() - started)
    return Timing(statistics.median(seconds), watch.peak)


def measure_receptive_field(network: nn.Module, in_channels: int, size: Shape) -> ReceptiveField:
    """Receptive field of the central voxel, by the gradient of its scores with respect to the image.

    Works on a copy in float64, so that faint gradients do not vanish. Normalisation over the image and activations
    are left out, and several random images are tried, so that a voxel counts when the structure lets it through.

    Args:
        network: Any; it is not changed.
        in_channels: Channels of the image.
        size: Voxels along each axis; the field is measured within it.
    """
    twin = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
    centre = tuple(n // 2 for n in size)
    seen = torch.zeros(size, dtype=torch.bool)
    with ExitStack() as hooks:
        for module in twin.modules():
            if isinstance(module, (*_STATISTICS, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.PReLU)):
                hooks.callback(module.register_forward_hook(_identity_hook).remove)
        for draw in range(_DRAWS):
            generator = torch.Generator().manual_seed(draw)
            image = torch.randn(1, in_channels, *size, generator=generator, dtype=torch.float64).requires_grad_()
            scores = twin(image)[(0, slice(None), *centre)]
            weights = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
            (gradient,) = torch.autograd.grad((scores * weights).sum(), image)
            seen |= (gradient[0] != 0).any(0)
    extents, cut = [], []
    for axis, n in enumerate(size):
        hit = seen.movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist() or [centre[axis]]
        extents.append(hit[-1] - hit[0] + 1)
        cut.append(n > 1 and (hit[0] == 0 or hit[-1] == n - 1))
    return ReceptiveField(
        (extents[0], extents[1], extents[2]),
        (cut[0], cut[1], cut[2]),
        _offset_reach(network, size),
        any(isinstance(module, _STATISTICS) for module in network.modules()),
    )


def activation_bytes(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Bytes of all maps a pass computes in float32, about what a pass with gradients holds; nothing is computed."""
    network, image = _on_meta_device(make, in_channels, size)
    with torch.enable_grad(), _ActivationCounter() as outputs:
        network(image)
    return outputs.bytes


def _on_meta_device(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> tuple[nn.Module, torch.Tensor]:
    """Network and image on torch's meta device: shapes alone."""
    with torch.device("meta"):
        return make().eval(), torch.zeros(1, in_channels, *size)


def _offset_reach(network: nn.Module, size: Shape) -> tuple[float, float, float] | None:
    farthest = None
    for name, offsets in network.named_parameters():
        if name.rpartition(".")[2] == "offsets" and offsets.shape[-1] == 3:
            own = offsets.detach().abs().reshape(-1, 3).amax(0).cpu()
            farthest = own if farthest is None else torch.maximum(farthest, own)
    if farthest is None:
        return None
    i, j, k = (float(f) * n / 2 for f, n in zip(farthest, size, strict=True))
    return i, j, k


def _identity_hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> torch.Tensor:
    return inputs[0]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Two floating-point operations a multiply-add, as torch counts its own operations.


def _grid_sampler(image: Any, grid: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * _CORNERS[len(image) - 2] * prod(out_shape)


def _sparse_conv(image: Any, offsets: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    batch, _out, outputs = out_shape
    dims = len(image) - 2
    reads = image[0] * image[1] * prod(offsets) // dims * _CORNERS[dims] * outputs
    # The weight has one row an output channel, as long as the inputs of its group; without one nothing is weighed.
    return int(2 * (reads + (batch * outputs * prod(weight) if weight else 0)))


def _formulas() -> dict[Any, Callable[..., int]]:
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.aten.grid_sampler_2d: _grid_sampler,
        torch.ops.aten.grid_sampler_3d: _grid_sampler,
    }
    if hasattr(torch.ops.farvox, "sparse_conv"):
        formulas[torch.ops.farvox.sparse_conv] = _sparse_conv
    return formulas


class _ActivationCounter(TorchDispatchMode):
    """Adds up the bytes of what operations give back, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.bytes += out.numel() * out.element_size()
        return out


class _Watch:
    """The most memory held while inside, above what was held before."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0

    def __enter__(self) -> _Watch:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        self._process = psutil.Process()
        reset_peak_memory(self.device)
        self._before, self._done = self._process.memory_info().rss, threading.Event()
        # Where the system can begin its own count anew it misses nothing; a thread that looks may come too late.
        self._counted = peak_memory_mb(self.device) * 2**20 < self._before + 2**22
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self._done.set()
        self._thread.join()
        if self._counted:
            self.peak = max(self.peak, int(peak_memory_mb(self.device) * 2**20) - self._before)

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss - self._before)
            if self._done.wait(0.001):
                return
