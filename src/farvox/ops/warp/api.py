"""Sampling of maps at points, and the distance between features and maps at points."""

from __future__ import annotations

from typing import Any, Literal

import torch

from farvox.errors import UsageError
from farvox.ops.warp import reference

Backend = Literal["auto", "cpu", "reference"]


def warp(maps: torch.Tensor, points: torch.Tensor, *, nearest: bool = False, fill: float | None = None) -> torch.Tensor:
    """Sample maps at points, linearly or from the nearest voxel; differentiable with respect to both.

    Args:
        maps: (B, C, I, J, K), float.
        points: (B, ..., 3) or (1, ..., 3), −1 to +1 over the maps along I, J, K, outer faces at ±1. Between a face and
            the outermost voxel centres, the outermost values are used, as in ITK.
        nearest: Nearest voxel instead of trilinear interpolation.
        fill: Value of points outside the maps; None: the outermost values.

    Returns:
        (B, C, ...).
    """
    return reference.warp(maps, points, nearest=nearest, fill=fill)


class FeatureDistance:
    """Smooth L1 distance between target features and those of maps at points, with its gradient.

    Both are stored once in the fastest layout for the backend.

    Args:
        target: (C, S) features.
        maps: (C, I, J, K) maps that are sampled; outside of them, the outermost values are used.
        backend: "cpu": sampling, distance and gradient in one pass, float32 on a CPU; "reference": plain PyTorch on any
            device; "auto": "cpu" if possible.
        round_below: The distance is d² / (2 · round_below) for smaller differences d, and |d| − round_below / 2 for
            larger ones; above 0. Avoids gradients of ±1 from rounding errors.

    Raises:
        UsageError: An unknown backend, or "cpu" for other tensors.
    """

    def __init__(
        self, target: torch.Tensor, maps: torch.Tensor, backend: Backend = "auto", round_below: float = 0.01
    ) -> None:
        if backend not in ("auto", "cpu", "reference"):
            raise UsageError(f"backend '{backend}'", allowed="auto, cpu or reference")
        fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (target, maps))
        if backend == "cpu" and not fits:
            raise UsageError("backend 'cpu' cannot run", allowed="float32 tensors on a CPU")
        self.round_below = round_below
        self.backend = "cpu" if fits and backend != "reference" else "reference"
        self._target, self._maps = target.detach(), maps.detach()
        if self.backend == "cpu":
            self._target = self._target.T.contiguous()  # (S, C)
            self._maps = self._maps.movedim(0, -1).contiguous()  # (I, J, K, C)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """The distance, a scalar.

        Args:
            points: (S, 3), normalised as for `warp`.
        """
        if self.backend == "reference":
            return reference.feature_distance(self._target, self._maps, points, self.round_below)
        distance: torch.Tensor = _OnePass.apply(points, self._target, self._maps, self.round_below)
        return distance


class _OnePass(torch.autograd.Function):
    """Computes the gradient together with the distance."""

    @staticmethod
    def forward(
        ctx: Any, points: torch.Tensor, target: torch.Tensor, maps: torch.Tensor, round_below: float
    ) -> torch.Tensor:
        from farvox.ops.warp import cpu

        distance, gradient = cpu.feature_distance(target, maps, points.detach(), round_below)
        ctx.save_for_backward(gradient)
        return distance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None
