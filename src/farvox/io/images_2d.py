"""Image files of two dimensions: read as a single slice, and results written as flat as they came."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from farvox._atomic import atomic_file
from farvox.geometry import Grid
from farvox.io import SUFFIXES, Scan, read_scan, write_mask
from farvox.io.io_errors import reading
from farvox.io.itk import LPS_TO_RAS, Placement, read_itk_header
from farvox.io.write import write_image
from farvox.types import Array

_THICKNESS_MM = 1.0
"""Of the slice, which the file does not say."""


def read_image_2d_or_3d(path: Path) -> Scan:
    """`read_scan`, and 2D images as (C, I, J, 1) in the plane z = 0.

    Raises:
        DataError: As `read_scan`.
    """
    return _read_flat(path) if _is_flat(path) else read_scan(path)


def write_image_2d_or_3d(path: Path, image: Array, like: Scan, *, labels: bool = False) -> None:
    """Write (C, I, J, K) like a scan from `read_image_2d_or_3d`: in its format, and flat where it is.

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
    flat = sitk.GetImageFromArray(pixels if len(image) > 1 else pixels[..., 0], isVector=len(image) > 1)
    flat.SetSpacing(like.header.spacing)
    flat.SetOrigin(like.header.origin)
    flat.SetDirection(like.header.direction)
    with atomic_file(path) as inner:
        sitk.WriteImage(flat, str(inner), useCompression=True)


def _is_flat(path: Path) -> bool:
    if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
        return False
    try:
        return len(read_itk_header(path).GetSize()) == 2
    except RuntimeError:  # said when it is read
        return False


def _read_flat(path: Path) -> Scan:
    import SimpleITK as sitk

    with reading(path, None):
        image = sitk.ReadImage(str(path))
        pixels = sitk.GetArrayFromImage(image)
    place = Placement.of(image)
    lps = np.eye(4)
    lps[:2, :2] = np.reshape(place.direction, (2, 2)) * place.spacing
    lps[:2, 3], lps[2, 2] = place.origin, _THICKNESS_MM
    channels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0)[..., None]
    i, j = image.GetSize()
    return Scan(channels, Grid((i, j, 1), LPS_TO_RAS @ lps), path, place)
