"""Bundles around networks whose answer is known, so that everything around the network can be tested exactly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from farvox.bundle import Bundle, LabelEntry, Manifest, ModelEntry
from farvox.data.prepare import IntensityStep, Preparation
from farvox.recipes import load_recipe


class Steps(nn.Module):
    """Logits that peak at the class equal to the rounded intensity: the identity, as a segmentation network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(50.0))
        self.register_buffer("levels", torch.arange(float(classes)).reshape(1, -1, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -self.sharpness * (image[:, :1] - self.levels) ** 2


def identity_bundle(
    values: dict[int, str],
    spacing: tuple[float, float, float],
    window: tuple[int, int, int] | None = (16, 16, 16),
    channels: tuple[str, ...] = ("MR",),
    network: nn.Module | None = None,
) -> Bundle:
    """A bundle that labels voxel intensity n with the n-th label."""
    labels = (LabelEntry(value=0, name="background"), *(LabelEntry(value=v, name=n) for v, n in values.items()))
    manifest = Manifest(
        model=ModelEntry(name="unet3d", in_channels=len(channels), classes=len(labels)),
        parameters=1,
        preparation=Preparation(
            spacing=spacing,
            channels=channels,
            intensity=tuple(IntensityStep(kind="fixed", low=0, high=len(labels)) for _ in channels),
        ),
        window=window,
        labels=labels,
    )
    return Bundle(network or Steps(len(labels)), manifest, load_recipe("default"), Path("made"))
