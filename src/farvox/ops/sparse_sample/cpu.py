"""The fast backend for CPUs: Numba kernels tile by tile, matrix products by PyTorch, its own threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from farvox.ops.sparse_sample._cpu_product import Product
from farvox.ops.sparse_sample.sample_points import SampleGrid, SamplePoints

_log = logging.getLogger(__name__)


def unavailable_reason(image: torch.Tensor) -> str | None:
    """Why these kernels cannot process this image; None if they can."""
    if image.device.type != "cpu":
        return f"the image is on {image.device}"
    if image.dtype == torch.float64:
        return "float64 needs the reference"
    if find_spec("numba") is None:
        return "numba is not installed"
    return None


def sample(image: torch.Tensor, offsets: torch.Tensor, sample_points: SamplePoints) -> torch.Tensor:
    """As `sparse_sample`: (B, C, K, S)."""
    return _forward(image, offsets, None, sample_points, 1).unflatten(1, (image.shape[1], offsets.shape[0]))


def conv(
    image: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor, sample_points: SamplePoints, groups: int
) -> torch.Tensor:
    """As `sparse_conv`: (B, O, S)."""
    return _forward(image, offsets, weight, sample_points, groups)


def sample_backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    sample_points: SamplePoints,
    needs: tuple[bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of image and offsets from grad (B, C, K, S); None where not needed."""
    return _backward(grad.flatten(1, 2), image, offsets, None, sample_points, 1, (*needs, False))[:2]


def conv_backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    sample_points: SamplePoints,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of image, offsets and weight from grad (B, O, S); None where not needed."""
    return _backward(grad, image, offsets, weight, sample_points, groups, needs)


def _forward(
    image: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor | None, sample_points: SamplePoints, groups: int
) -> torch.Tensor:
    rows = image.shape[1] * offsets.shape[0] if weight is None else weight.shape[0]
    out = torch.empty(image.shape[0], rows, sample_points.count, dtype=torch.float32)
    if out.numel():
        with _log_compilation("forward", sample_points):
            product = None if weight is None else Product(weight, groups)
            _sampler(image, offsets, sample_points).forward(product, out)
    return out.to(image.dtype)


def _backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None,
    sample_points: SamplePoints,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    grad_image = torch.zeros(image.shape, dtype=torch.float32) if needs[0] else None
    grad_offsets = torch.zeros(offsets.shape, dtype=torch.float64) if needs[1] else None
    grad_weight = torch.zeros(weight.shape, dtype=torch.float32) if needs[2] and weight is not None else None
    if grad.numel():
        with _log_compilation("backward", sample_points):
            product = None if weight is None else Product(weight, groups)
            sampler = _sampler(image, offsets, sample_points)
            sampler.backward(product, grad.detach(), grad_image, grad_offsets, grad_weight)
    return (
        None if grad_image is None else grad_image.to(image.dtype),
        None if grad_offsets is None else grad_offsets.to(offsets.dtype),
        None if grad_weight is None or weight is None else grad_weight.to(weight.dtype),
    )


def _sampler(image: torch.Tensor, offsets: torch.Tensor, sample_points: SamplePoints) -> Any:
    # Imported here because importing numba is slow, and because the reference runs without it.
    image, offsets = image.detach(), offsets.detach()
    if isinstance(sample_points, SampleGrid):
        from farvox.ops.sparse_sample._cpu_grid import GridSampler

        return GridSampler(image, offsets, sample_points)
    from farvox.ops.sparse_sample._cpu_points import PointSampler

    return PointSampler(image, offsets, sample_points)


_compiled: set[tuple[str, bool]] = set()


@contextmanager
def _log_compilation(direction: str, sample_points: SamplePoints) -> Iterator[None]:
    """Log a message if the first use takes long; compiled code is cached on disk."""
    key = direction, isinstance(sample_points, SampleGrid)
    if key in _compiled:
        yield
        return
    notice = threading.Timer(
        2.0, _log.warning, ("compiling the CPU sampling kernels (%s); this happens once per installation", direction)
    )
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
    _compiled.add(key)
