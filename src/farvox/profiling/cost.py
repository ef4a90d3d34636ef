"""Multiply-adds, time, memory and receptive field of a network."""

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
"""Number of neighbours in linear interpolation, by dimensions."""
_STATISTICS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm)
_DRAWS = 3


@dataclass(frozen=True)
class ReceptiveField:
    """The input voxels that the output at the central voxel depends on.

    Args:
        voxels: Size along each axis.
        truncated: Whether it ends at the border of the image, along each axis, and may be larger on a larger image.
        farthest_offset: Largest distance of a learned offset, voxels along each axis; None without offsets.
        has_global_normalization: Whether there is normalisation over the image, which the measurement ignores: through
            it each output depends slightly on the whole image.
    """

    voxels: Shape
    truncated: tuple[bool, bool, bool]
    farthest_offset: tuple[float, float, float] | None
    has_global_normalization: bool

    def __str__(self) -> str:
        sizes = (f"{size}{'+' if cut else ''}" for size, cut in zip(self.voxels, self.truncated, strict=True))
        text = f"{'×'.join(sizes)} voxels{' (+: up to the border of the image)' if any(self.truncated) else ''}"
        return text + ("; slightly the whole image, through normalisation" if self.has_global_normalization else "")


@dataclass(frozen=True)
class Timing:
    """Seconds of one pass without gradients (median), and its peak memory above that of the idle process, bytes.

    On a CPU the bytes are 0 if a pass fits into memory that the process has already.
    """

    seconds: float
    peak_bytes: int


def multiply_adds(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Multiply-adds of one pass over an image; only shapes are computed, so that any size is fast.

    Counted are convolutions, matrix products and sparse sampling: a linear interpolation is one multiply-add for each
    corner, 8 for a volume, for every channel, offset and output, twice that for pairs; then the products with the
    weights. Not counted, as in the papers: normalisation, activations, pooling, upsampling, and additions of maps.

    Args:
        make: Builds the network; called with torch's meta device.
        in_channels: Channels of the image.
        size: Voxels along each axis.
    """
    network, image = _on_meta_device(make, in_channels, size)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    # With gradients: blocks have faster paths for inference, which count differently.
    with torch.enable_grad(), counter:
        network(image)
    return counter.get_total_flops() // 2


def minimum_bytes(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Smallest number of bytes of a pass: weights, image and output in float32; only shapes are computed.

    Args:
        make: Builds the network; called with torch's meta device.
        in_channels: Channels of the image.
        size: Voxels along each axis.
    """
    network, image = _on_meta_device(make, in_channels, size)
    with torch.enable_grad():
        output = network(image)
    return sum(t.numel() * t.element_size() for t in (*network.state_dict().values(), image, output))


def measure_time_and_memory(network: nn.Module, in_channels: int, size: Shape, repeats: int = 5) -> Timing:
    """Time and memory of passes over one image, on the device the network is on.

    On a CPU it is the memory of the process, as counted by the system (Linux) or read every millisecond. A pass over a
    small image comes first, in which libraries initialise and compile.

    Args:
        network: In eval mode.
        in_channels: Channels of the image.
        size: Voxels along each axis.
        repeats: Number of timed passes.
    """
    device = next(network.parameters()).device
    gc.collect()
    with torch.inference_mode():
        network(torch.randn(1, in_channels, *(min(n, 16) for n in size), device=device))
    with torch.inference_mode(), _PeakMemoryMonitor(device) as monitor:
        image = torch.randn(1, in_channels, *size, device=device)
        network(image)
        seconds = []
        for _ in range(repeats):
            _finish(device)
            started = time.perf_counter()
            network(image)
            _finish(device)
            seconds.append(time.perf_counter() - started)
    return Timing(statistics.median(seconds), monitor.peak)


def measure_receptive_field(network: nn.Module, in_channels: int, size: Shape) -> ReceptiveField:
    """Receptive field of the central voxel, from the gradient of its logits with respect to the image.

    Works on a copy in float64, so that small gradients do not vanish. Normalisation over the image and activations are
    skipped, and several random images are tried, so that every voxel counts that is connected to the output.

    Args:
        network: It is not changed.
        in_channels: Channels of the image.
        size: Voxels along each axis; a larger field is truncated to it.
    """
    network_copy = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
    centre = tuple(n // 2 for n in size)
    connected = torch.zeros(size, dtype=torch.bool)
    with ExitStack() as hooks:
        for module in network_copy.modules():
            if isinstance(module, (*_STATISTICS, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.PReLU)):
                hooks.callback(module.register_forward_hook(_identity_hook).remove)
        for draw in range(_DRAWS):
            generator = torch.Generator().manual_seed(draw)
            image = torch.randn(1, in_channels, *size, generator=generator, dtype=torch.float64).requires_grad_()
            logits = network_copy(image)[(0, slice(None), *centre)]
            weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            (gradient,) = torch.autograd.grad((logits * weights).sum(), image)
            connected |= (gradient[0] != 0).any(0)
    sizes, truncated = [], []
    for axis, n in enumerate(size):
        hit = connected.movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist() or [centre[axis]]
        sizes.append(hit[-1] - hit[0] + 1)
        truncated.append(n > 1 and (hit[0] == 0 or hit[-1] == n - 1))
    return ReceptiveField(
        (sizes[0], sizes[1], sizes[2]),
        (truncated[0], truncated[1], truncated[2]),
        _farthest_offset(network, size),
        any(isinstance(module, _STATISTICS) for module in network.modules()),
    )


def activation_bytes(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> int:
    """Bytes of all maps of a pass in float32, about the memory of a pass with gradients; only shapes are computed."""
    network, image = _on_meta_device(make, in_channels, size)
    with torch.enable_grad(), _ActivationCounter() as outputs:
        network(image)
    return outputs.bytes


def _on_meta_device(make: Callable[[], nn.Module], in_channels: int, size: Shape) -> tuple[nn.Module, torch.Tensor]:
    """Network and image on torch's meta device, which has shapes but no values."""
    with torch.device("meta"):
        return make().eval(), torch.zeros(1, in_channels, *size)


def _farthest_offset(network: nn.Module, size: Shape) -> tuple[float, float, float] | None:
    farthest = None
    for name, offsets in network.named_parameters():
        if name.rpartition(".")[2] == "offsets" and offsets.shape[-1] == 3:
            largest = offsets.detach().abs().reshape(-1, 3).amax(0).cpu()
            farthest = largest if farthest is None else torch.maximum(farthest, largest)
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
    samples = image[0] * image[1] * prod(offsets) // dims * _CORNERS[dims] * outputs
    # The weight has one row per output channel, with the inputs of its group; it may be missing.
    return int(2 * (samples + (batch * outputs * prod(weight) if weight else 0)))


def _formulas() -> dict[Any, Callable[..., int]]:
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.aten.grid_sampler_2d: _grid_sampler,
        torch.ops.aten.grid_sampler_3d: _grid_sampler,
    }
    if hasattr(torch.ops.farvox, "sparse_conv"):
        formulas[torch.ops.farvox.sparse_conv] = _sparse_conv
    return formulas


class _ActivationCounter(TorchDispatchMode):
    """Adds up the bytes of the outputs of all operations, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.bytes += out.numel() * out.element_size()
        return out


class _PeakMemoryMonitor:
    """Peak memory inside the context, above that at its start, bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0

    def __enter__(self) -> _PeakMemoryMonitor:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        self._process = psutil.Process()
        reset_peak_memory(self.device)
        self._before, self._done = self._process.memory_info().rss, threading.Event()
        # The system's own peak misses nothing if it could be reset; a polling thread can miss short peaks.
        self._was_reset = peak_memory_mb(self.device) * 2**20 < self._before + 2**22
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self._done.set()
        self._thread.join()
        if self._was_reset:
            self.peak = max(self.peak, int(peak_memory_mb(self.device) * 2**20) - self._before)

    def _poll(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss - self._before)
            if self._done.wait(0.001):
                return
