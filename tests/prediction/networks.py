"""Bundles around networks with a known output, so that everything around the network can be tested exactly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from farvox import create_model
from farvox.bundle import Bundle, Inference, LabelEntry, Manifest, ModelEntry
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from farvox.recipes import load_recipe


class Steps(nn.Module):
    """Logits that peak at the class equal to the rounded intensity: the identity, as a segmentation network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(50.0))
        self.register_buffer("levels", torch.arange(float(classes)).reshape(1, -1, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -self.sharpness * (image[:, :1] - self.levels) ** 2


class PointSteps(Steps):
    """The same as a point network: intensities are interpolated linearly between voxels."""

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def forward_points(self, prepared: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        positions = points.flip(-1)[:, :, None, None]
        read = nn.functional.grid_sample(prepared, positions, padding_mode="border", align_corners=False)
        return self(read)[..., 0, 0]

    def forward_points_batch(self, prepared, points, matrices=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return torch.cat([self.forward_points(image, some) for image, some in zip(prepared, points, strict=True)], 2)

    point_features = forward_points

    def logits_on_grid(self, image: torch.Tensor) -> torch.Tensor:
        return self(image)

    def with_stride(self, stride: int) -> PointSteps:
        return self


def point_network(classes: int, seed: int = 0, **options: object) -> nn.Module:
    """A small untrained point network with the batch statistics and the range of logits of a trained one."""
    torch.manual_seed(seed)
    options = {"offsets": 24, "smoothing": [3]} | options
    network = create_model("obelisk-dense", in_channels=1, classes=classes, **options)
    noise = torch.randn(2, 1, 14, 12, 13)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    with torch.no_grad():
        network.train()(noise)
        network.head.weight.mul_(4)
    return network.eval()


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
        preprocessing=Preprocessing(
            spacing=spacing,
            channels=channels,
            intensity=tuple(IntensityNormalization(kind="dataset", low=0, high=len(labels)) for _ in channels),
        ),
        inference=Inference(patch_size=window),
        labels=labels,
    )
    return Bundle(network or Steps(len(labels)), manifest, load_recipe("default"), Path("made"))
