"""The metrics of a registration: displacement, folding, and Dice of propagated labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from farvox.geometry import Grid
from farvox.registration.options import RegisterOptions
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from rich.table import Table

_SLAB = 16
_MIN_OVERLAP = 0.5
_MAX_FOLDING = 0.01


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DisplacementStatistics(_Model):
    """Length of the displacements without the initial translation, mm."""

    mean: float
    max: float


class JacobianStatistics(_Model):
    """Statistics of the Jacobian determinant.

    Args:
        folding_fraction: Fraction of voxels with a determinant of 0 or less.
        log_jacobian_sd: Standard deviation of the natural logarithm of the positive determinants.
        min: Smallest determinant.
        max: Largest determinant.
    """

    folding_fraction: float
    log_jacobian_sd: float
    min: float
    max: float


class FeatureDistance(_Model):
    """Mean feature distance before and after the optimisation at one resolution, in standard deviations."""

    before: float
    after: float


class LabelDice(_Model):
    """Dice of one propagated label with the initial translation only and after the registration."""

    value: int
    name: str
    before: float | None
    after: float | None


class RegistrationMetrics(_Model):
    """The content of `metrics.json`.

    Args:
        fixed: Path of the fixed scan.
        moving: Path of the moving scan.
        bundle: Path of the bundle.
        network: Name of the network.
        options: Options of the registration.
        initial_mm: Initial translation, mm, RAS+.
        overlap_fraction: Fraction of the fixed field of view inside the moving one after the initial translation.
        displacement_mm: Length of the displacements without the initial translation.
        jacobian: Volume change and folding.
        feature_distance: One entry for each resolution, from coarse to fine.
        seconds: Time of the features and of the optimisation.
        dice: One entry for each label; None without labels of both scans.
    """

    format: Literal["farvox-registration/2"] = "farvox-registration/2"
    fixed: str
    moving: str
    bundle: str
    network: str
    options: RegisterOptions
    initial_mm: tuple[float, float, float]
    overlap_fraction: float
    displacement_mm: DisplacementStatistics
    jacobian: JacobianStatistics
    feature_distance: tuple[FeatureDistance, ...]
    seconds: dict[str, float]
    dice: tuple[LabelDice, ...] | None = None

    @property
    def warnings(self) -> list[str]:
        """Reasons to distrust the result, one line each."""
        lines = []
        if self.overlap_fraction < _MIN_OVERLAP:
            lines.append(
                f"only {100 * self.overlap_fraction:.0f} % of the fixed scan is inside the moving scan at the start; "
                "if this is wrong, try --init centers or --init search"
            )
        if self.jacobian.folding_fraction > _MAX_FOLDING:
            lines.append(
                f"{100 * self.jacobian.folding_fraction:.1f} % of the voxels are folded, which is not anatomically "
                "plausible; try another --init, or more --smoothness"
            )
        return lines

    def table(self) -> Table:
        """A `rich` table of the feature distance and of Dice, before and after."""
        from rich.table import Table

        table = Table("", "before", "after")
        for column in table.columns[1:]:
            column.justify = "right"
        if self.feature_distance:
            first, last = self.feature_distance[0], self.feature_distance[-1]
            table.add_row("feature distance", f"{first.before:.3f}", f"{last.after:.3f}")
        for label in self.dice or ():
            values = ("–" if dice is None else f"{dice:.3f}" for dice in (label.before, label.after))
            table.add_row(f"Dice {label.name}".replace("[", r"\["), *values)
        return table

    def __str__(self) -> str:
        moved, folding = self.displacement_mm, 100 * self.jacobian.folding_fraction
        return (
            f"mean displacement {moved.mean:.2f} mm, max {moved.max:.2f} mm; {folding:.2f} % of voxels folded; "
            f"{sum(self.seconds.values()):.1f} s"
        )


def jacobian_determinant(field: FloatArray, grid: Grid) -> FloatArray:
    """Jacobian determinant of x + field(x): the volume after deformation of a unit volume, 0 or less where it folds.

    Central differences inside, one-sided ones at the faces. Along an axis of one voxel the derivative is 0.

    Args:
        field: (3, I, J, K) displacement, mm, RAS+.
        grid: Grid of the field; its axes may be oblique.

    Returns:
        (I, J, K) float32.
    """
    out = np.empty(grid.shape, dtype=np.float32)
    to_index = np.linalg.inv(grid.affine[:3, :3])
    depth = grid.shape[2]
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        slab = field[..., low:high].astype(np.float64)
        slopes = [np.gradient(slab, axis=axis) if slab.shape[axis] > 1 else np.zeros_like(slab) for axis in (1, 2, 3)]
        by_index = np.stack(slopes, -1)[:, :, :, start - low : stop - low]  # (3, I, J, n, 3)
        jacobian = np.moveaxis(by_index @ to_index, 0, -2) + np.eye(3)  # (I, J, n, 3, 3)
        out[..., start:stop] = np.linalg.det(jacobian)
    return out


def jacobian_statistics(determinant: Array) -> JacobianStatistics:
    """Statistics of an array of determinants."""
    positive = determinant[determinant > 0]
    return JacobianStatistics(
        folding_fraction=float((determinant <= 0).mean()),
        log_jacobian_sd=float(np.log(positive).std()) if positive.size else 0.0,
        min=float(determinant.min()),
        max=float(determinant.max()),
    )
