"""What registration calls: maps read at points, and how far features at moved points are from wanted ones."""

from __future__ import annotations

from typing import Any, Literal

import torch

from farvox.ops.warp import reference

Backend = Literal["auto", "cpu", "reference"]


def warp(maps: torch.Tensor, points: torch.Tensor, *, nearest: bool = False, fill: float | None = None) -> torch.Tensor:
    """Read maps at points, linearly or from the nearest voxel; differentiable in both.

    Args:
        maps: (B, C, I, J, K), float.
        points: (B, ..., 3) or (1, ..., 3), −1 to +1 over the maps along I, J, K, outer faces at ±1. Between a face and
            the outermost voxel centres the outermost values hold, as in ITK.
        nearest: Nearest voxel in place of trilinear interpolation.
        fill: Value of points beyond the faces; None continues the outermost values.

    Returns:
        (B, C, ...).
    """
    return reference.warp(maps, points, nearest=nearest, fill=fill)


class FeatureDistance:
    """Mean absolute difference, rounded off near 0, of wanted features and those of maps at points; with its gradient.

    Both are brought once into the layout that the backend reads fastest.

    Args:
        wanted: (C, S) features.
        maps: (C, I, J, K) maps that are read; outermost values continue beyond the faces.
        backend: "cpu" reads, compares and differentiates in one pass, float32 on a processor; "reference" is plain
            torch on anything; "auto" takes "cpu" where it can run.
        round_below: Differences d below it count d² / (2 · round_below), larger ones |d| − round_below / 2; above 0.
            The absolute value would answer rounding errors with a slope of ±1.

    Raises:
        ValueError: An unknown backend, or "cpu" for tensors it does not take.
    """

    def __init__(
        self, wanted: torch.Tensor, maps: torch.Tensor, backend: Backend = "auto", round_below: float = 0.01
    ) -> None:
        if backend not in ("auto", "cpu", "reference"):
            raise ValueError(f"backend '{backend}'; known: auto, cpu, reference")
        fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (wanted, maps))
        if backend == "cpu" and not fits:
            raise ValueError("backend 'cpu' takes float32 tensors on a processor")
        self.round_below = round_below
        self.backend = "cpu" if fits and backend != "reference" else "reference"
        self._wanted, self._maps = wanted.detach(), maps.detach()
        if self.backend == "cpu":
            self._wanted = self._wanted.T.contiguous()  # (S, C)
            self._maps = self._maps.movedim(0, -1).contiguous()  # (I, J, K, C)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """The distance, a scalar.

        Args:
            points: (S, 3), normalised as for `warp`.
        """
        if self.backend == "reference":
            return reference.feature_distance(self._wanted, self._maps, points, self.round_below)
        distance: torch.Tensor = _OnePass.apply(points, self._wanted, self._maps, self.round_below)
        return distance


class _OnePass(torch.autograd.Function):
    """The gradient is known as soon as the distance is."""

    @staticmethod
    def forward(
        ctx: Any, points: torch.Tensor, wanted: torch.Tensor, maps: torch.Tensor, round_below: float
    ) -> torch.Tensor:
        from farvox.ops.warp import cpu

        distance, gradient = cpu.feature_distance(wanted, maps, points.detach(), round_below)
        ctx.save_for_backward(gradient)
        return distance

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * given[0], None, None, None
