"""Sparse sampling and sparse convolution: checks arguments and chooses a backend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import torch

from farvox._deprecated import renamed_argument
from farvox.errors import UsageError
from farvox.ops.sparse_sample import reference
from farvox.ops.sparse_sample.library import BACKEND_MODULES, sparse_conv_op
from farvox.ops.sparse_sample.sample_points import FreePoints, SampleGrid, SamplePoints, flatten_positions

BACKENDS = ("reference", "cpu", "triton")
"""Backends by name; "auto" is the fast one for the image's device if it can run."""

_log = logging.getLogger(__name__)


@renamed_argument("matrices", "offset_transforms")
def sparse_sample(
    image: torch.Tensor,
    offsets: torch.Tensor,
    *,
    grid: Sequence[int] | SampleGrid | None = None,
    points: torch.Tensor | None = None,
    offset_transforms: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Sample an image at learned offsets around each output position, with linear interpolation, zero outside.

    Coordinates are normalised (−1 to +1 over the image) and in array axis order (I, J, K); d is 3, or 2 for 2D images.
    At offsets or points that are not finite, samples are zero. The image and offsets receive gradients; points and
    offset_transforms only with the reference.

    Args:
        image: (B, C, I, J, K) or (B, C, I, J), floating point; half precision is sampled in float32.
        offsets: (K, d), or (K, 2, d) for pairs (first sample minus second); float32 or the image's type.
        grid: Output sizes (voxel centres of an evenly divided volume), or a `SampleGrid`.
        points: (B, S, d) output positions, half-pixel convention, float32 or the image's type; either this or `grid`.
        offset_transforms: (B, S, d, d), only with points: each multiplies the normalised offsets of its point, which
            has the effect of transforming the image around it (OBELISK, MIDL 2018, section 2.1).
        backend: "auto" or a name out of `BACKENDS`.

    Returns:
        (B, C, K, S) of the image's type, S in the order of the points, or of the grid with its last axis fastest.

    Raises:
        UsageError: Arguments that do not fit together, or a backend that cannot run.
    """
    offsets, sample_points = _prepare(image, offsets, grid, points, offset_transforms)
    backend = _choose(backend, image, sample_points)
    if backend == "reference":
        return reference.sample(
            image, offsets, *flatten_positions(sample_points, offsets), _offset_transforms(sample_points)
        )
    return sparse_conv_op(image, offsets, None, *_operator_arguments(sample_points), 1, backend).unflatten(
        1, (image.shape[1], offsets.shape[0])
    )


@renamed_argument("matrices", "offset_transforms")
def sparse_conv(
    image: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    *,
    grid: Sequence[int] | SampleGrid | None = None,
    points: torch.Tensor | None = None,
    offset_transforms: torch.Tensor | None = None,
    groups: int = 1,
    backend: str = "auto",
) -> torch.Tensor:
    """`sparse_sample` and a 1×1 convolution in one operation, without storing all samples.

    Args:
        image: As for `sparse_sample`.
        offsets: As for `sparse_sample`.
        weight: (O, C·K / groups), second axis channel-major (c·K + k), of the image's type.
        grid: As for `sparse_sample`.
        points: As for `sparse_sample`.
        offset_transforms: As for `sparse_sample`.
        groups: Groups of the convolution; divides both O and C·K.
        backend: "auto" or a name out of `BACKENDS`.

    Returns:
        (B, O, S) of the image's type.

    Raises:
        UsageError: Arguments that do not fit together, or a backend that cannot run.
    """
    offsets, sample_points = _prepare(image, offsets, grid, points, offset_transforms)
    channels, count = image.shape[1], offsets.shape[0]
    rows = channels * count
    if not isinstance(groups, int):
        raise UsageError(f"groups={groups!r}", allowed="a positive whole number")
    if groups < 1 or rows % groups or weight.ndim != 2 or weight.shape[1] * groups != rows or weight.shape[0] % groups:
        raise UsageError(
            f"weight of shape {tuple(weight.shape)} with groups={groups}",
            allowed=f"(O, {rows} / groups) for {channels} channels and {count} offsets, groups dividing O",
        )
    _check_tensor("weight", weight, image, (image.dtype,))
    backend = _choose(backend, image, sample_points)
    if backend == "reference":
        return reference.conv(
            image,
            offsets,
            weight,
            *flatten_positions(sample_points, offsets),
            groups,
            _offset_transforms(sample_points),
        )
    return sparse_conv_op(image, offsets, weight, *_operator_arguments(sample_points), groups, backend)


def _offset_transforms(sample_points: SamplePoints) -> torch.Tensor | None:
    return sample_points.offset_transforms if isinstance(sample_points, FreePoints) else None


def _operator_arguments(
    sample_points: SamplePoints,
) -> tuple[torch.Tensor | None, torch.Tensor | None, list[int], bool, int, int]:
    """SamplePoints as arguments of the operator."""
    if isinstance(sample_points, SampleGrid):
        if sample_points.start == 0 and sample_points.stop is None:
            return None, None, list(sample_points.shape), sample_points.align_corners, 0, sample_points.shape[0]
        first = range(sample_points.shape[0])[sample_points.start : sample_points.stop]
        return None, None, list(sample_points.shape), sample_points.align_corners, first.start, first.start + len(first)
    return sample_points.positions, sample_points.offset_transforms, [], False, 0, 0


def _choose(backend: str, image: torch.Tensor, sample_points: SamplePoints) -> str:
    """The backend that runs."""
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no sampling backend '{backend}'", allowed=f"auto, {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    candidate = backend if backend != "auto" else "triton" if image.is_cuda else "cpu"
    reason = _unavailable_reason(candidate, image.device, image.dtype)
    if reason is None and isinstance(sample_points, FreePoints):
        if sample_points.offset_transforms is not None and candidate == "triton":
            reason = "offset_transforms need the reference or the CPU"
        positions = (t for t in (sample_points.positions, sample_points.offset_transforms) if t is not None)
        if torch.is_grad_enabled() and any(t.requires_grad for t in positions):
            reason = "only the reference has gradients of points and offset_transforms"
    if reason is None:
        return candidate
    if backend != "auto":
        raise UsageError(f"backend '{backend}' cannot run: {reason}", hint="use 'reference' or 'auto'")
    return "reference"


@cache
def _unavailable_reason(backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot process such images; logged once."""
    reason: str | None = BACKEND_MODULES[backend].unavailable_reason(torch.empty(0, dtype=dtype, device=device))
    if reason is not None:
        _log.info("sparse sampling by '%s' is not possible: %s", backend, reason)
    return reason


def _prepare(
    image: torch.Tensor,
    offsets: torch.Tensor,
    grid: Sequence[int] | SampleGrid | None,
    points: torch.Tensor | None,
    offset_transforms: torch.Tensor | None,
) -> tuple[torch.Tensor, SamplePoints]:
    """Offsets in the dtype of the computation, and the output positions."""
    arguments = {"image": image, "offsets": offsets, "points": points, "offset_transforms": offset_transforms}
    for name, value in arguments.items():
        optional = value is None and name in ("points", "offset_transforms")
        if not optional and not isinstance(value, torch.Tensor):
            raise UsageError(f"{name} of type {type(value).__name__}", allowed="a torch tensor")
    if image.ndim not in (4, 5) or 0 in image.shape[1:]:
        raise UsageError(
            f"image of shape {tuple(image.shape)}", allowed="(B, C, I, J, K) or (B, C, I, J), none of C, I, J, K 0"
        )
    dims = image.ndim - 2
    _check_tensor("image", image, image, (image.dtype,))
    _check_tensor("offsets", offsets, image, (image.dtype, torch.float32))
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
    if offset_transforms is not None and points is None:
        raise UsageError("offset_transforms with a grid", allowed="offset_transforms with points")
    dtype = torch.promote_types(image.dtype, torch.float32)
    offsets = offsets.to(dtype)
    if points is not None:
        _check_tensor("points", points, image, (image.dtype, torch.float32))
        if points.ndim != 3 or points.shape[0] != image.shape[0] or points.shape[2] != dims:
            raise UsageError(f"points of shape {tuple(points.shape)}", allowed=f"({image.shape[0]}, S, {dims})")
        if offset_transforms is None:
            return offsets, FreePoints(points.to(dtype))
        _check_tensor("offset_transforms", offset_transforms, image, (image.dtype, torch.float32))
        if offset_transforms.shape != (*points.shape, dims):
            raise UsageError(
                f"offset_transforms of shape {tuple(offset_transforms.shape)}",
                allowed=str((*points.shape, dims)) + ", one per point",
            )
        return offsets, FreePoints(points.to(dtype), offset_transforms.to(dtype))
    if not isinstance(grid, SampleGrid):
        grid = SampleGrid(tuple(grid) if isinstance(grid, Sequence) else (grid,))  # type: ignore[arg-type]
    integers = all(isinstance(size, (int, torch.SymInt)) for size in grid.shape)
    if not integers or len(grid.shape) != dims or min(grid.shape) < 1:
        raise UsageError(f"grid {grid.shape}", allowed=f"{dims} positive whole numbers")
    return offsets, grid


def _check_tensor(name: str, tensor: torch.Tensor, image: torch.Tensor, types: tuple[torch.dtype, ...]) -> None:
    if not tensor.is_floating_point():
        raise UsageError(f"{name} of type {tensor.dtype}", allowed="floating point", hint=f"pass {name}.float()")
    if tensor.device != image.device:
        raise UsageError(
            f"{name} on {tensor.device}, image on {image.device}", hint=f"pass {name}.to('{image.device}')"
        )
    if tensor.dtype not in types:
        raise UsageError(
            f"{name} of type {tensor.dtype} with an image of type {image.dtype}",
            allowed=" or ".join(str(dtype) for dtype in dict.fromkeys(types)),
            hint=f"pass {name}.to(image.dtype)",
        )
