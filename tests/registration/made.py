"""Scans from a formula, which is exact on any grid and after any displacement; and a network with fixed weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from farvox.bundle import Bundle
from farvox.geometry import Grid
from farvox.io.scan import Scan
from farvox.preprocessing.config import IntensityNormalization, Preprocessing
from tests.prediction.networks import identity_bundle

Displace = Callable[[np.ndarray], np.ndarray]


class Identity(nn.Module):
    """The features are the image itself, followed by a last layer."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.head = nn.Conv3d(channels, 2, 1)
        nn.init.constant_(self.head.weight, 1.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image)


def intensity_bundle(
    spacing: float = 2.0,
    window: tuple[int, int, int] | None = None,
    channels: tuple[str, ...] = ("MR",),
    unit: float = 1.0,
) -> Bundle:
    """A bundle whose features are intensities in multiples of `unit`."""
    bundle = identity_bundle({1: "blob"}, (spacing,) * 3, window, channels, Identity(len(channels)))
    steps = tuple(IntensityNormalization(kind="dataset", low=-10 * unit, high=10 * unit, sd=unit) for _ in channels)
    preprocessing = Preprocessing(spacing=(spacing,) * 3, channels=channels, intensity=steps)
    return Bundle(
        bundle.network, bundle.manifest.model_copy(update={"preprocessing": preprocessing}), bundle.recipe, Path()
    )


def anatomy(points_mm: np.ndarray) -> np.ndarray:
    """(N, 3) mm → intensity: forty blobs of 5 to 9 mm within 60 mm around the origin, bright and dark."""
    rng = np.random.default_rng(5)
    out = np.zeros(len(points_mm))
    for _ in range(40):
        centre, width, height = rng.uniform(-30, 30, 3), rng.uniform(5, 9), rng.choice([-2.0, 2.0])
        out += height * np.exp(-((points_mm - centre) ** 2).sum(1) / (2 * width**2))
    return out


def scan_on(grid: Grid, displace: Displace | None = None, name: str = "scan.nii.gz") -> Scan:
    """The anatomy on a grid; with `displace`, voxel x has the intensity at x + displace(x)."""
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    points = grid.voxel_to_mm(voxels)
    if displace is not None:
        points = points + displace(points)
    return Scan(anatomy(points).reshape(1, *grid.shape).astype(np.float32), grid, Path(name))


def grid_about_origin(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], axes: np.ndarray | None = None
) -> Grid:
    """A grid with its centre at the origin; `axes` are unit vectors as columns."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def wave(points_mm: np.ndarray) -> np.ndarray:
    """A smooth displacement of up to 4 mm."""
    x, y, z = points_mm.T / 60
    full_turn = 2 * np.pi
    return np.stack(
        (3 * np.cos(full_turn * y), -4 * np.sin(full_turn * x * 0.7), 2 * np.cos(full_turn * (x + z) * 0.5)), 1
    )


def rotated_axes(degrees: float) -> np.ndarray:
    """Axes rotated about the superior axis, then by a third of the angle about the right one."""
    a, b = np.radians(degrees), np.radians(degrees / 3)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x
