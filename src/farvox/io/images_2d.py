"""2D image files as scans of a single slice, written as 2D images again; and images in memory as scans."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from farvox._atomic import atomic_file
from farvox.errors import DataError
from farvox.geometry import Grid
from farvox.io import SUFFIXES, Scan, read_scan, write_mask
from farvox.io.io_errors import reading
from farvox.io.itk import LPS_TO_RAS, Placement, read_itk_header, to_channels_first
from farvox.io.write import write_image
from farvox.types import Array, FloatArray, PathLike

if TYPE_CHECKING:
    import SimpleITK
    import torch
    from nibabel.spatialimages import SpatialImage

ImageLike = Union[PathLike, Scan, Array, "torch.Tensor", "SpatialImage", "SimpleITK.Image"]
"""A path, a `Scan`, an array, a tensor, a nibabel image or a SimpleITK image."""

_THICKNESS_MM = 1.0
"""Of the slice, which a 2D file does not define."""


def as_scan(image: ImageLike, affine: FloatArray | None = None) -> Scan:
    """An image of any kind as a scan.

    Args:
        image: A path, a `Scan`, a nibabel or SimpleITK image, or an array or tensor (I, J, K) or (C, I, J, K). 2D
            files and 2D SimpleITK images become (C, I, J, 1) in the plane z = 0.
        affine: For an array: 4×4, voxel index to mm, RAS+.

    Raises:
        DataError: As `read_scan`, or an array without an affine.
    """
    if isinstance(image, Scan):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image_2d_or_3d(Path(image))
    if hasattr(image, "GetDirection"):
        return _from_itk(image, Path("image"))
    if hasattr(image, "dataobj") and hasattr(image, "affine"):
        voxels, affine = np.asanyarray(image.dataobj), image.affine
        voxels = np.moveaxis(voxels, -1, 0) if voxels.ndim == 4 else voxels
    else:
        if hasattr(image, "detach"):
            image = image.detach().cpu()
            image = image.float() if "bfloat16" in str(image.dtype) else image  # numpy has no such type
        voxels = np.asarray(image)
    if voxels.ndim not in (3, 4):
        raise DataError(f"an array of {voxels.ndim} dimensions", allowed="(I, J, K) or (C, I, J, K)")
    if voxels.dtype.kind not in "biuf":
        raise DataError(f"an array of type {voxels.dtype}", allowed="real numbers")
    if affine is None:
        raise DataError("an array without affine", hint="give the 4×4 affine from voxel index to mm, RAS+, or a Scan")
    voxels = voxels if voxels.ndim == 4 else voxels[None]
    return Scan(voxels, Grid(voxels.shape[1:], affine), Path("array"))


def read_image_2d_or_3d(path: Path) -> Scan:
    """`read_scan`, and 2D images as (C, I, J, 1) in the plane z = 0.

    Raises:
        DataError: As `read_scan`.
    """
    if not _is_2d(path):
        return read_scan(path)
    import SimpleITK as sitk

    with reading(path, None):
        return _from_itk(sitk.ReadImage(str(path)), path)


def write_image_2d_or_3d(path: Path, image: Array, like: Scan, *, labels: bool = False) -> None:
    """Write (C, I, J, K) in the geometry of a scan from `read_image_2d_or_3d`, as a 2D image if the scan is one.

    Raises:
        ResourceError: The disk is full or the folder cannot be written to.
    """
    if not (isinstance(like.header, Placement) and len(like.header.spacing) == 2):
        if labels:
            write_mask(path, image[0], like)
        else:
            write_image(path, image, like)
        return
    import SimpleITK as sitk

    pixels = np.ascontiguousarray(image[..., 0].transpose(2, 1, 0))  # (J, I, C)
    image_2d = sitk.GetImageFromArray(pixels if len(image) > 1 else pixels[..., 0], isVector=len(image) > 1)
    image_2d.SetSpacing(like.header.spacing)
    image_2d.SetOrigin(like.header.origin)
    image_2d.SetDirection(like.header.direction)
    with atomic_file(path) as temporary:
        sitk.WriteImage(image_2d, str(temporary), useCompression=True)


def _is_2d(path: Path) -> bool:
    if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
        return False
    try:
        return len(read_itk_header(path).GetSize()) == 2
    except RuntimeError:  # `read_scan` reports it
        return False


def _from_itk(image: Any, path: Path) -> Scan:
    """A 2D or 3D SimpleITK image as a scan."""
    import SimpleITK as sitk

    placement = Placement.of(image)
    if image.GetDimension() == 3:
        return Scan(to_channels_first(image), Grid(image.GetSize(), placement.affine), path, placement)
    pixels = sitk.GetArrayFromImage(image)
    lps = np.eye(4)
    lps[:2, :2] = np.reshape(placement.direction, (2, 2)) * placement.spacing
    lps[:2, 3], lps[2, 2] = placement.origin, _THICKNESS_MM
    channels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0)[..., None]
    return Scan(channels, Grid((*image.GetSize(), 1), LPS_TO_RAS @ lps), path, placement)
