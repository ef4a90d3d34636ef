"""How large a window and a slab may be for the work to stay under a memory limit."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
import torch

from farvox.errors import ResourceError, UsageError
from farvox.types import Shape

_FLOAT = 4
_RESERVE = 128 * 2**20
"""Allocator slack and library scratch that the counts below do not see, bytes."""
_ASKED = 256 * 2**20
"""What a point network holds of the points it is answering, bytes."""
_REFINED_PLANES = (32, 16, 8)
_SCORES_HELD = 6


@dataclass(frozen=True)
class MemoryPlan:
    """Window in network space (voxels) and slices of the scan reduced at once."""

    window: Shape
    slab: int


def parse_memory(text: str) -> int:
    """'2G', '800M', '1.5GB' → bytes.

    Raises:
        UsageError: Not such a text.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])i?B?\s*", text, flags=re.IGNORECASE)
    size = float(match[1]) * 1024 ** ("KMGT".index(match[2].upper()) + 1) if match else 0
    if size <= 0:
        raise UsageError(f"memory '{text}'", allowed="a size such as 800M or 2G")
    return int(size)


def resident_bytes() -> int:
    """Memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


def plan_memory(
    limit: int | None,
    network: torch.nn.Module,
    channels: int,
    classes: int,
    networks: int,
    window: Shape,
    space: Shape,
    scan: Shape,
    fixed: bool = False,
    piecewise: bool = False,
) -> MemoryPlan:
    """Largest window and slab that keep the process under `limit` bytes.

    Args:
        limit: Bytes for the whole process; None for three quarters of what is free now, on top of what is in use.
        network: One of the networks; its feature maps are counted by a trial on a small input.
        channels: Input channels.
        classes: Classes, background included.
        networks: How many networks vote.
        window: Wanted window.
        space: Voxels of the scan in network space.
        scan: Voxels of the scan.
        fixed: The window is that of training, scan or patch, and never cut: the network reaches relative to it.
        piecewise: The network holds feature maps of a limited number of points at a time, as point networks do.

    Raises:
        ResourceError: Even the smallest window, or the one a network needs, does not fit.
    """
    budget = _budget(limit, scan)
    per_voxel = 0.0 if piecewise else feature_bytes_per_voxel(network, channels)
    budget -= _ASKED if piecewise else 0
    smallest = tuple(min(w, 16) for w in window)
    while True:
        width, height = max(space[0], window[0]), max(space[1], window[1])
        plane = width * height
        # Sums and weights, the part being handed on and the one held for interpolation, and the input slab twice.
        stream = plane * window[2] * _FLOAT * (2 * classes + 1 + 2 * channels) + plane * classes * _FLOAT * 8
        need = networks * stream + _voxels(window) * (per_voxel + 2 * classes * _FLOAT)
        slice_bytes = max(scan[0] * scan[1], plane) * _FLOAT * classes * (2 + min(networks, 2))
        slab = int((budget - need) // slice_bytes)
        if slab >= 1:
            return MemoryPlan(window, min(slab, 32, scan[2]))
        axis = 2 if window[2] > max(smallest[2], 32) else max(range(3), key=lambda a: window[a] / smallest[a])
        if fixed or window[axis] <= smallest[axis]:
            size = "as a whole" if window == space else f"in windows of {'×'.join(map(str, window))}"
            how = f" {size}, as this network must," if fixed else ""
            raise _too_large(scan, classes, how, need + slice_bytes - budget + (limit or 0))
        shrunk = list(window)
        shrunk[axis] = max(smallest[axis], window[axis] // 2)
        window = (shrunk[0], shrunk[1], shrunk[2])


def plan_refinement(
    limit: int | None, channels: int, classes: int, networks: int, space: Shape, scan: Shape
) -> MemoryPlan:
    """As `plan_memory`, for scores from coarse to fine: `window` is what is refined at once.

    Raises:
        ResourceError: Not even a few slices fit.
    """
    budget = _budget(limit, scan) - _ASKED
    image = 3 * channels * _voxels(space) * _FLOAT  # as read, as smoothed, and once more on the way
    plane = space[0] * space[1]
    slice_bytes = max(scan[0] * scan[1], plane) * _FLOAT * classes * (2 + min(networks, 2))
    for planes in _REFINED_PLANES:
        # Interpolated scores with a margin, their copy, the part before and what is held for the way back.
        held = _SCORES_HELD * plane * planes + _voxels(space) // 16
        need = networks * (image + held * classes * _FLOAT)
        slab = int((budget - need) // slice_bytes)
        if slab >= 1:
            return MemoryPlan((space[0], space[1], planes), min(slab, 32, scan[2]))
    raise _too_large(scan, classes, "", need + slice_bytes - budget + (limit or 0))


def feature_bytes_per_voxel(network: torch.nn.Module, channels: int) -> float:
    """Bytes of feature maps per input voxel, an upper bound: all leaf modules' outputs of one small pass, halved.

    Half, because a pass without gradients frees what it has used; skip connections are what stays.
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


def _budget(limit: int | None, scan: Shape) -> int:
    """Bytes that may still be taken."""
    used = resident_bytes() + _voxels(scan) * 2  # the label, as classes and as values
    budget = limit - used if limit is not None else int(psutil.virtual_memory().available * 0.75)
    return budget - _RESERVE


def _too_large(scan: Shape, classes: int, how: str, wanted: float) -> ResourceError:
    return ResourceError(
        f"predicting {'×'.join(map(str, scan))} voxels with {classes} classes{how} does not fit into memory",
        allowed=f"about {wanted / 2**20:.0f}M or more",
        hint="raise --max-memory, or predict fewer networks at once",
    )


def _voxels(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]
