"""The grid of a scan: how many voxels along each axis and where they lie in the patient, in mm."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from farvox.types import Array, FloatArray, Shape


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape (I, J, K) and 4×4 affine from voxel index to patient coordinates in mm, RAS+.

    Distances, orientation and every change of grid derive from these two; nothing else carries geometry.
    """

    shape: Shape
    affine: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))
        self.affine.setflags(write=False)

    @property
    def spacing(self) -> FloatArray:
        """Distance between voxel centres along each axis, mm."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(0))

    @property
    def axes(self) -> FloatArray:
        """(3, 3) unit vectors along the voxel axes as columns, RAS+."""
        return self.affine[:3, :3] / self.spacing

    @property
    def axcodes(self) -> str:
        """Patient direction each voxel axis points to, nearest letters, e.g. 'RAS'."""
        order, flips = self.nearest_axes
        letters = ("RL", "AP", "SI")
        return "".join(letters[order.index(axis)][flips[axis]] for axis in range(3))

    @property
    def nearest_axes(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """(voxel axis that runs nearest to right, anterior and superior; whether each voxel axis runs against it).

        The assignment with the largest summed alignment, so that oblique scans get each axis once.
        """
        u, _, vt = np.linalg.svd(self.axes)
        aligned = u @ vt
        i, j, k = max(permutations(range(3)), key=lambda o: sum(abs(aligned[d, o[d]]) for d in range(3)))
        order = (i, j, k)
        a, b, c = (bool(aligned[order.index(axis), axis] < 0) for axis in range(3))
        return order, (a, b, c)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    @property
    def diagonal_mm(self) -> float:
        """Length of the scan's diagonal, mm: the largest distance two of its voxels can have."""
        return float(np.linalg.norm(self.affine[:3, :3] @ (np.array(self.shape) - 1)))

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def difference_to(self, other: Grid) -> str | None:
        """None when the two grids agree (to a twentieth of a voxel), else what differs, for a message."""
        if self.shape != other.shape:
            return f"shape {_times(other.shape)} against {_times(self.shape)}"
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        away = (other.affine[:3, :3] - self.affine[:3, :3]) @ corners + (other.affine - self.affine)[:3, 3:]
        worst = float(np.sqrt((away**2).sum(0)).max())
        if not np.isfinite(worst) or worst > 0.05 * float(self.spacing.min()):
            return f"affine differs by up to {worst:.3g} mm"
        return None

    def centres(self) -> FloatArray:
        """(N, 3) mm of all voxel centres, K fastest."""
        return self.voxel_to_mm(np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).reshape(-1, 3))

    def voxel_to_mm(self, voxels: Array) -> FloatArray:
        """(N, 3) voxel indices → (N, 3) mm."""
        return voxels @ self.affine[:3, :3].T + self.affine[:3, 3]

    def mm_to_voxel(self, points_mm: Array) -> FloatArray:
        """(N, 3) mm → (N, 3) fractional voxel indices."""
        return np.linalg.solve(self.affine[:3, :3], (points_mm - self.affine[:3, 3]).T).T

    def mm_to_unit(self, points_mm: Array) -> FloatArray:
        """(N, 3) mm → (N, 3) with −1 and +1 on the outer faces of the scan along I, J, K: the half-pixel convention."""
        return (2 * self.mm_to_voxel(points_mm) + 1) / np.array(self.shape) - 1

    def unit_to_mm(self, points: Array) -> FloatArray:
        """(N, 3) as of `normalised` → (N, 3) mm."""
        return self.voxel_to_mm(((points + 1) * np.array(self.shape) - 1) / 2)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
