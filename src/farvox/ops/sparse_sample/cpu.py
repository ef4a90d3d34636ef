"""The fast backend for processors: Numba kernels tile by tile, matrix products by torch, threads of its own."""

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
    """Why these kernels cannot read this image; None if they can."""
    if image.device.type != "cpu":
        return f"the image is on {image.device}"
    if image.dtype == torch.float64:
        return "float64 is for the reference"
    if find_spec("numba") is None:
        return "numba is not installed"
    return None


def sample(image: torch.Tensor, offsets: torch.Tensor, places: SamplePoints) -> torch.Tensor:
    """As `sparse_sample`: (B, C, K, S)."""
    return _forward(image, offsets, None, places, 1).unflatten(1, (image.shape[1], offsets.shape[0]))


def conv(
    image: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor, places: SamplePoints, groups: int
) -> torch.Tensor:
    """As `sparse_conv`: (B, O, S)."""
    return _forward(image, offsets, weight, places, groups)


def sample_backward(
    grad: torch.Tensor, image: torch.Tensor, offsets: torch.Tensor, places: SamplePoints, needs: tuple[bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of image and offsets from grad (B, C, K, S); None where not needed."""
    return _backward(grad.flatten(1, 2), image, offsets, None, places, 1, (*needs, False))[:2]


def conv_backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    places: SamplePoints,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of image, offsets and weight from grad (B, O, S); None where not needed."""
    return _backward(grad, image, offsets, weight, places, groups, needs)


def _forward(
    image: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor | None, places: SamplePoints, groups: int
) -> torch.Tensor:
    rows = image.shape[1] * offsets.shape[0] if weight is None else weight.shape[0]
    out = torch.empty(image.shape[0], rows, places.count, dtype=torch.float32)
    if out.numel():
        with _saying_that_it_compiles("forward", places):
            product = None if weight is None else Product(weight, groups)
            _walk(image, offsets, places).forward(product, out)
    return out.to(image.dtype)


def _backward(
    grad: torch.Tensor,
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor | None,
    places: SamplePoints,
    groups: int,
    needs: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    grad_image = torch.zeros(image.shape, dtype=torch.float32) if needs[0] else None
    grad_offsets = torch.zeros(offsets.shape, dtype=torch.float64) if needs[1] else None
    grad_weight = torch.zeros(weight.shape, dtype=torch.float32) if needs[2] and weight is not None else None
    if grad.numel():
        with _saying_that_it_compiles("backward", places):
            product = None if weight is None else Product(weight, groups)
            walk = _walk(image, offsets, places)
            walk.backward(product, grad.detach(), grad_image, grad_offsets, grad_weight)
    return (
        None if grad_image is None else grad_image.to(image.dtype),
        None if grad_offsets is None else grad_offsets.to(offsets.dtype),
        None if grad_weight is None or weight is None else grad_weight.to(weight.dtype),
    )


def _walk(image: torch.Tensor, offsets: torch.Tensor, places: SamplePoints) -> Any:
    # Imported here because numba takes a while, and need not be installed where only the reference runs.
    image, offsets = image.detach(), offsets.detach()
    if isinstance(places, SampleGrid):
        from farvox.ops.sparse_sample._cpu_grid import GridSampler

        return GridSampler(image, offsets, places)
    from farvox.ops.sparse_sample._cpu_points import PointSampler

    return PointSampler(image, offsets, places)


_compiled: set[tuple[str, bool]] = set()


@contextmanager
def _saying_that_it_compiles(direction: str, places: SamplePoints) -> Iterator[None]:
    """A line in the log when a first use takes long; compiled code is kept on disk, so most first uses do not."""
    key = direction, isinstance(places, SampleGrid)
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
