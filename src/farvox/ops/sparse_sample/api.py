"""What others call: arguments checked, positions laid out, a backend chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from farvox.errors import UsageError
from farvox.ops.sparse_sample import reference

BACKENDS = ("reference",)
"""Backends that can be asked for by name; "auto" takes the fastest that can run."""


@dataclass(frozen=True)
class SampleGrid:
    """Output positions on a regular grid over the image.

    Args:
        shape: Outputs along each axis.
        align_corners: True puts ±1 on the centres of the corner voxels, for offsets too; False (half pixel) on the
            outer faces of the image.
    """

    shape: tuple[int, ...]
    align_corners: bool = False

    def positions(self, like: torch.Tensor) -> torch.Tensor:
        """(1, S, d) normalised positions, last axis fastest, dtype and device of `like`."""
        axes = []
        for size in self.shape:
            index = torch.arange(size, dtype=like.dtype, device=like.device)
            if not self.align_corners:
                axes.append((2 * index + 1) / size - 1)
            else:
                axes.append(2 * index / (size - 1) - 1 if size > 1 else index)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, len(self.shape))


def sparse_sample(
    image: torch.Tensor,
    offsets: torch.Tensor,
    *,
    grid: Sequence[int] | SampleGrid | None = None,
    points: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Read an image at learned offsets around each output position, linear interpolation, zero outside.

    Coordinates are normalised (−1 to +1 over the image) and in array axis order (I, J, K); d is 3, or 2 for 2D images.

    Args:
        image: (B, C, I, J, K) or (B, C, I, J), floating point; half precision is sampled in float32.
        offsets: (K, d), or (K, 2, d) for pairs: first minus second.
        grid: Output sizes (voxel centres of an evenly divided volume), or a `SampleGrid`.
        points: (B, S, d) output positions, half-pixel convention; either this or `grid`.
        backend: "auto" or a name out of `BACKENDS`.

    Returns:
        (B, C, K, S), S in the order of the points, or of the grid with its last axis fastest.

    Raises:
        UsageError: Arguments that do not fit together, or an unknown backend.
    """
    image, offsets, positions, corners = _prepare(image, offsets, grid, points, backend)
    return reference.sample(image, offsets, positions, corners)


def sparse_conv(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    *,
    grid: Sequence[int] | SampleGrid | None = None,
    points: torch.Tensor | None = None,
    groups: int = 1,
    backend: str = "auto",
) -> torch.Tensor:
    """`sparse_sample` and a 1×1 convolution in one, without holding all that was read.

    Args:
        image: As for `sparse_sample`.
        offsets: As for `sparse_sample`.
        weight: (O, C·K / groups), second axis channel-major (c·K + k).
        grid: As for `sparse_sample`.
        points: As for `sparse_sample`.
        groups: Groups of the convolution; divides both O and C·K.
        backend: "auto" or a name out of `BACKENDS`.

    Returns:
        (B, O, S).

    Raises:
        UsageError: Arguments that do not fit together, or an unknown backend.
    """
    image, offsets, positions, corners = _prepare(image, offsets, grid, points, backend)
    channels, count = image.shape[1], offsets.shape[0]
    rows = channels * count
    if groups < 1 or rows % groups or weight.ndim != 2 or weight.shape[1] * groups != rows or weight.shape[0] % groups:
        raise UsageError(
            f"weight of shape {tuple(weight.shape)} with groups={groups}",
            allowed=f"(O, {rows} / groups) for {channels} channels and {count} offsets, groups dividing O",
        )
    _check_tensor("weight", weight, image.device)
    return reference.conv(image, offsets, weight.to(image.dtype), positions, corners, groups)


def _prepare(
    image: torch.Tensor,
    offsets: torch.Tensor,
    grid: Sequence[int] | SampleGrid | None,
    points: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    """Image, offsets and positions in one dtype, and whether corners are aligned."""
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"no sampling backend '{backend}'", allowed=f"auto, {', '.join(BACKENDS)}")
    if image.ndim not in (4, 5) or 0 in image.shape:
        raise UsageError(
            f"image of shape {tuple(image.shape)}", allowed="(B, C, I, J, K) or (B, C, I, J), none of them 0"
        )
    dims = image.ndim - 2
    _check_tensor("image", image, image.device)
    _check_tensor("offsets", offsets, image.device)
    if (
        offsets.ndim not in (2, 3)
        or 0 in offsets.shape
        or offsets.shape[-1] != dims
        or offsets.shape[1:-1] not in ((), (2,))
    ):
        raise UsageError(
            f"offsets of shape {tuple(offsets.shape)}", allowed=f"(K, {dims}), or (K, 2, {dims}) for pairs"
        )
    if (grid is None) == (points is None):
        raise UsageError("both a grid and points" if points is not None else "neither a grid nor points", allowed="one")
    dtype = torch.promote_types(torch.promote_types(image.dtype, offsets.dtype), torch.float32)
    image, offsets = image.to(dtype), offsets.to(dtype)
    if points is not None:
        _check_tensor("points", points, image.device)
        if points.ndim != 3 or points.shape[0] != image.shape[0] or points.shape[2] != dims:
            raise UsageError(f"points of shape {tuple(points.shape)}", allowed=f"({image.shape[0]}, S, {dims})")
        return image, offsets, points.to(dtype), False
    if not isinstance(grid, SampleGrid):
        grid = SampleGrid(tuple(grid or ()))
    if len(grid.shape) != dims or min(grid.shape) < 1:
        raise UsageError(f"grid {grid.shape}", allowed=f"{dims} positive sizes")
    return image, offsets, grid.positions(offsets), grid.align_corners


def _check_tensor(name: str, tensor: torch.Tensor, device: torch.device) -> None:
    if not tensor.is_floating_point():
        raise UsageError(f"{name} of type {tensor.dtype}", allowed="floating point", remedy=f"pass {name}.float()")
    if tensor.device != device:
        raise UsageError(f"{name} on {tensor.device}, image on {device}", remedy=f"pass {name}.to('{device}')")
