"""MetaImage (.mha, .mhd) and NRRD through SimpleITK; its k, j, i arrays and LPS axes become I, J, K and RAS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.types import Array, FloatArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Placement(NamedTuple):
    """Position and orientation of an ITK image in ITK's own terms: mm, LPS, direction row by row."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: Any) -> Placement:
        """Of a SimpleITK image, or a reader that has read a header."""
        return cls(image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_grid(cls, grid: Grid) -> Placement:
        """Of a grid."""
        lps = LPS_TO_RAS @ grid.affine
        direction = lps[:3, :3] / grid.spacing
        return cls(tuple(grid.spacing.tolist()), tuple(lps[:3, 3].tolist()), tuple(direction.ravel().tolist()))

    @property
    def affine(self) -> FloatArray:
        """4×4 from voxel index (I, J, K) to RAS mm."""
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(self.direction, (3, 3)) * self.spacing
        lps[:3, 3] = self.origin
        return LPS_TO_RAS @ lps


def read(path: Path) -> tuple[Array, Grid, Placement, tuple[str, ...]]:
    """Image (C, I, J, K) in the file's dtype, grid, placement and notes."""
    import SimpleITK as sitk

    grid, _ = info(path)
    image = sitk.ReadImage(str(path))
    return to_channels_first(image), grid, Placement.of(image), ()


def info(path: Path) -> tuple[Grid, int]:
    """Grid and number of channels, from the header alone."""
    reader = read_itk_header(path)
    size = reader.GetSize()
    if len(size) != 3:
        raise DataError(f"{len(size)} dimensions ({'×'.join(map(str, size))})", allowed="3, or 3 and channels")
    return Grid(size, Placement.of(reader).affine), reader.GetNumberOfComponents()


def read_header(path: Path) -> Placement:
    """The placement, from the header alone."""
    return Placement.of(read_itk_header(path))


def read_itk_header(path: Path) -> Any:
    """SimpleITK reader that has read the header and no voxels."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def to_channels_first(image: Any) -> Array:
    """(C, I, J, K) view of one copy of a 3D SimpleITK image's voxels."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    return np.transpose(array.reshape(*array.shape[:3], -1), (3, 2, 1, 0))


def write(path: Path, values: Array, grid: Grid, header: Any) -> None:
    """Write (I, J, K), or vectors (I, J, K, C), compressed, at the placement given in `header`, else at the grid's."""
    import SimpleITK as sitk

    placement = header if isinstance(header, Placement) else Placement.from_grid(grid)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.swapaxes(0, 2)), isVector=values.ndim == 4)
    image.SetSpacing(placement.spacing)
    image.SetOrigin(placement.origin)
    image.SetDirection(placement.direction)
    sitk.WriteImage(image, str(path), useCompression=True)
