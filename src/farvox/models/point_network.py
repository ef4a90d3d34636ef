"""The interface of networks that predict single points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class PointNetwork(Protocol):
    """Methods that training, prediction and localisation at points call; `isinstance` checks for them.

    Points are (B, S, 3), −1 to +1 over the image along I, J, K, outer faces at ±1.
    """

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Preprocess an image (B, C, I, J, K), once for all its points."""

    def forward_points(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes, S)."""

    def forward_points_batch(
        self,
        prepared: Sequence[torch.Tensor],
        points: Sequence[torch.Tensor],
        offset_transforms: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Logits (1, classes, sum of S) at points of several images, as one batch."""

    def point_features(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Inputs of the last layer, (B, features, S)."""

    def logits_on_grid(self, image: torch.Tensor) -> torch.Tensor:
        """Logits on the network's own grid (B, classes, I', J', K')."""

    def with_stride(self, stride: int) -> PointNetwork:
        """The same network with the same weights, whose grid has another stride: 1, 2 or 4."""
