"""One phantom scan: a patient drawn from a seed, on a grid of its own, with a scanner's blur and noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from farvox.errors import UsageError
from farvox.geometry import Grid
from farvox.synthetic.anatomy import abdomen
from farvox.synthetic.shapes import rotation, smooth_field
from farvox.types import Array, FloatArray

AIR = -1000.0
FIELD_OF_VIEW = np.array([308.0, 256.0, 208.0])
"""What a scan covers to the right, anterior and superior, mm."""


def phantom_case(seed: int) -> tuple[Array, Array, Grid]:
    """A CT-like abdomen, the same for the same seed.

    About 76 × 64 × 40 voxels of 3.6–4.2 mm in plane and 4.4–6 mm between slices, stored in varying axis orders and
    directions, about a third of them oblique. Label values are those of `PHANTOM_LABELS`.

    Args:
        seed: 0 or larger.

    Returns:
        Image int16 (I, J, K) in HU, label uint8 (I, J, K), and the grid of both.

    Raises:
        UsageError: A negative seed.
    """
    if seed < 0:
        raise UsageError(f"phantom seed {seed}", allowed="0 or larger")
    rng = np.random.default_rng(seed)
    grid, centre = draw_grid(rng)
    points = _patient_points(grid, centre, rng)
    grain = [gaussian_filter(_white(rng, grid), sigma).ravel() for sigma in (0.8, 1.6)]
    texture = sum(field / field.std() for field in grain) / np.float32(np.sqrt(2))

    image = np.full(grid.n_voxels, AIR, dtype=np.float32)
    label = np.zeros(grid.n_voxels, dtype=np.uint8)
    blur = np.float32(grid.spacing.mean())
    for layer in abdomen(points, rng):
        coverage = np.clip(0.5 - layer.distance / blur, 0, 1)
        image += coverage * (layer.hu + np.float32(layer.texture) * texture - image)
        label[coverage > 0.5] = layer.label

    noise = gaussian_filter(_white(rng, grid), 0.5)
    scan = image.reshape(grid.shape) + noise * (rng.uniform(8, 15) / noise.std())
    return np.clip(np.round(scan), -1024, 3071).astype(np.int16), label.reshape(grid.shape), grid


def draw_grid(rng: np.random.Generator) -> tuple[Grid, FloatArray]:
    """A grid of random spacing, axis order, directions and tilt, and the point (3,) in mm it is centred on."""
    plane = rng.uniform(3.6, 4.2)
    spacing = np.array([plane, plane, rng.uniform(4.4, 6.0)])
    order = rng.permutation(3) if rng.random() < 0.4 else np.arange(3)
    signs = rng.choice([-1.0, 1.0], 3)
    tilt = rotation(rng.uniform(-12, 12, 3)).astype(float) if rng.random() < 0.35 else np.eye(3)
    centre = rng.uniform(-150, 150, 3)

    i, j, k = (int(n) for n in np.round(FIELD_OF_VIEW / spacing)[order])
    affine = np.eye(4)
    affine[:3, :3] = (tilt * spacing)[:, order] * signs
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return Grid((i, j, k), affine), centre


def _patient_points(grid: Grid, centre: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(3, N) position of every voxel in the upright patient, mm: pose and size undone, then bent smoothly."""
    voxels = np.indices(grid.shape, dtype=np.float64).reshape(3, -1).T
    world = (grid.voxel_to_mm(voxels) - centre).T.astype(np.float32)
    shift, size = rng.uniform(-8, 8, 3), rng.uniform(1.0, 1.13, 3)
    pose = rotation(rng.uniform(-5, 5, 3))
    points = (pose.T @ (world - shift[:, None].astype(np.float32))) / size[:, None].astype(np.float32)
    bend = [smooth_field(points, rng, 220) for _ in range(3)]
    return points + np.float32(4) * np.stack(bend)


def _white(rng: np.random.Generator, grid: Grid) -> FloatArray:
    return rng.standard_normal(grid.shape, dtype=np.float32)
