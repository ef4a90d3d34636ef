"""The grid of a scan: the number of voxels along each axis and their positions in the patient, in mm."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from farvox.errors import DataError
from farvox.types import Array, FloatArray, Shape


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape (I, J, K) and 4×4 affine from voxel index to patient coordinates in mm, RAS+.

    Distances, orientation and every change of grid are computed from these two.

    Raises:
        DataError: The shape is not three positive numbers, or the affine is not 4×4, not finite or singular.

    >>> grid = Grid((64, 64, 20), np.diag([-0.5, 0.5, 3.0, 1.0]))
    >>> grid.axcodes, grid.spacing.tolist()
    ('LAS', [0.5, 0.5, 3.0])
    >>> grid.voxel_to_mm(np.array([[10, 0, 2]])).tolist()
    [[-5.0, 0.0, 6.0]]
    """

    shape: Shape
    affine: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))
        self.affine.setflags(write=False)
        if len(self.shape) != 3:
            raise DataError(f"{len(self.shape)} dimensions ({_times(self.shape)})", allowed="3, or 3 and channels")
        if min(self.shape) < 1:
            raise DataError(f"no voxels ({_times(self.shape)})")
        if self.affine.shape != (4, 4):
            raise DataError(f"an affine of shape {_times(self.affine.shape)}", allowed="4×4, voxel index to mm (RAS+)")
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        finite = np.isfinite(self.affine).all()
        if not finite or abs(np.linalg.det(self.affine[:3, :3])) <= 1e-6 * lengths.prod():
            raise DataError(
                f"the affine is singular: voxel spacing {', '.join(f'{length:g}' for length in lengths)} mm"
                if finite
                else "the affine holds NaN or infinite values",
                allowed="three independent axes with positive spacing",
                hint="set spacing and orientation in the file's header (NIfTI: sform or qform)",
            )

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
        """(voxel axis nearest to right, anterior and superior; whether each voxel axis points the opposite way).

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
        """(N, 3) mm → (N, 3) with −1 and +1 at the outer faces of the scan along I, J, K (half-pixel convention)."""
        return (2 * self.mm_to_voxel(points_mm) + 1) / np.array(self.shape) - 1

    def unit_to_mm(self, points: Array) -> FloatArray:
        """(N, 3) as of `mm_to_unit` → (N, 3) mm."""
        return self.voxel_to_mm(((points + 1) * np.array(self.shape) - 1) / 2)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
