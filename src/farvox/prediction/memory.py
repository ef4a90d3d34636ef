"""Sizes of windows and slabs that keep a prediction below a memory limit."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
import torch

from farvox.errors import ResourceError, UsageError
from farvox.types import Shape

_FLOAT = 4
_RESERVE = 128 * 2**20
"""Memory of the allocator and of libraries that the estimates do not include, bytes."""
_POINT_CHUNK = 256 * 2**20
"""Memory of a point network for the points that it evaluates at a time, bytes."""
_PLANES_PER_CHUNK = (32, 16, 8)
_PROBABILITY_COPIES = 6


@dataclass(frozen=True)
class MemoryRequest:
    """What a prediction needs memory for.

    Args:
        limit: Largest size of the process, bytes; None: its present size and three quarters of the free memory.
        channels: Channels of the image.
        classes: Output classes, background included.
        networks: Number of networks whose probabilities are averaged.
        space: Voxels of the preprocessed scan.
        scan: Voxels of the scan.
        output_bytes: Size of the result for each voxel of the scan.
    """

    limit: int | None
    channels: int
    classes: int
    networks: int
    space: Shape
    scan: Shape
    output_bytes: int = 2

    @property
    def budget(self) -> int:
        """Bytes that the prediction can allocate."""
        free = int(psutil.virtual_memory().available * 0.75)
        available = free if self.limit is None else self.limit - resident_bytes()
        return available - _n_voxels(self.scan) * self.output_bytes - _RESERVE

    @property
    def slice_bytes(self) -> int:
        """Memory for each slice of the scan that is resampled at a time."""
        plane = max(self.scan[0] * self.scan[1], self.space[0] * self.space[1])
        return plane * _FLOAT * self.classes * (2 + min(self.networks, 2))

    def too_large(self, how: str, missing: float) -> ResourceError:
        """The error for a scan that needs `missing` more bytes than there are."""
        size, needed = "×".join(map(str, self.scan)), missing + (self.limit or 0)
        return ResourceError(
            f"the prediction of {size} voxels with {self.classes} classes{how} does not fit into memory",
            allowed=f"about {needed / 2**20:.0f}M or more",
            hint="raise --max-memory (max_memory=), or use fewer networks at a time",
        )


@dataclass(frozen=True)
class MemoryPlan:
    """Voxels of a window on the network grid, and number of slices of the scan that are resampled at a time."""

    window: Shape
    slab: int


def parse_memory(size: str | int) -> int:
    """Convert "2G", "800M", "1.5GB" or a number of bytes to bytes.

    >>> parse_memory("1.5G")
    1610612736

    Raises:
        UsageError: Another text, or a size that is not above zero.
    """
    if not isinstance(size, str):
        number = int(size)
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])i?B?\s*", size, flags=re.IGNORECASE)
        number = int(float(match[1]) * 1024 ** ("KMGT".index(match[2].upper()) + 1)) if match else 0
    if number <= 0:
        raise UsageError(f"memory '{size}'", allowed="a size such as 800M or 2G")
    return number


def resident_bytes() -> int:
    """Present size of this process."""
    return int(psutil.Process().memory_info().rss)


def plan_memory(
    request: MemoryRequest,
    network: torch.nn.Module,
    window: Shape,
    *,
    fixed_window: bool = False,
    chunked: bool = False,
) -> MemoryPlan:
    """Find the largest window and slab that fit.

    Args:
        request: What needs memory.
        network: One of the networks; the size of its feature maps is measured on a small image.
        window: Preferred window, voxels.
        fixed_window: The window must not become smaller, since the network's output depends on the size of its input.
        chunked: The network evaluates a limited number of points at a time, as point networks do.

    Raises:
        ResourceError: Even the smallest window, or the fixed one, does not fit.
    """
    space, classes, channels, networks = request.space, request.classes, request.channels, request.networks
    per_voxel = 0.0 if chunked else feature_bytes_per_voxel(network, channels)
    budget = request.budget - (_POINT_CHUNK if chunked else 0)
    smallest = tuple(min(w, 16) for w in window)
    while True:
        plane = max(space[0], window[0]) * max(space[1], window[1])
        # Sums and weights, the last slab and the previous one for interpolation, and twice the input slab.
        stream = plane * window[2] * _FLOAT * (2 * classes + 1 + 2 * channels) + plane * classes * _FLOAT * 8
        need = networks * stream + _n_voxels(window) * (per_voxel + 2 * classes * _FLOAT)
        slab = int((budget - need) // request.slice_bytes)
        if slab >= 1:
            return MemoryPlan(window, min(slab, 32, request.scan[2]))
        axis = 2 if window[2] > max(smallest[2], 32) else max(range(3), key=lambda a: window[a] / smallest[a])
        if fixed_window or window[axis] <= smallest[axis]:
            size = "as a whole" if window == space else f"in windows of {'×'.join(map(str, window))}"
            how = f" {size}, as this network requires," if fixed_window else ""
            raise request.too_large(how, need + request.slice_bytes - budget)
        shrunk = list(window)
        shrunk[axis] = max(smallest[axis], window[axis] // 2)
        window = (shrunk[0], shrunk[1], shrunk[2])


def plan_coarse_to_fine(request: MemoryRequest) -> MemoryPlan:
    """As `plan_memory`, for coarse-to-fine evaluation: `window` is the part of a level that is refined at a time.

    Raises:
        ResourceError: Not even a few slices fit.
    """
    space, classes, budget = request.space, request.classes, request.budget - _POINT_CHUNK
    image = 3 * request.channels * _n_voxels(space) * _FLOAT  # the scan, the smoothed scan and one copy
    for planes in _PLANES_PER_CHUNK:
        # Interpolated probabilities with a margin, their copy, the previous part and a margin for resampling.
        n_probabilities = _PROBABILITY_COPIES * space[0] * space[1] * planes + _n_voxels(space) // 16
        need = request.networks * (image + n_probabilities * classes * _FLOAT)
        slab = int((budget - need) // request.slice_bytes)
        if slab >= 1:
            return MemoryPlan((space[0], space[1], planes), min(slab, 32, request.scan[2]))
    raise request.too_large("", need + request.slice_bytes - budget)


def feature_bytes_per_voxel(network: torch.nn.Module, channels: int) -> float:
    """Upper bound of the size of the feature maps per input voxel: half of the outputs of all leaf modules.

    Half, because a pass without gradients frees its intermediate results, apart from skip connections.
    """
    total = 0

    def count(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * _FLOAT

    hooks = [m.register_forward_hook(count) for m in network.modules() if not list(m.children())]
    try:
        side = 16
        with torch.inference_mode():
            network(torch.zeros(1, channels, side, side, side, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return total / side**3 / 2


def _n_voxels(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]
