"""Scans, labels and masks as files: NIfTI, MetaImage, NRRD and DICOM series."""

from farvox.io.names import SUFFIXES, case_id_from_path, is_scan, mask_name
from farvox.io.read import count_channels, read_grid, read_label, read_scan
from farvox.io.scan import Scan
from farvox.io.write import write_image, write_mask

__all__ = [
    "SUFFIXES",
    "Scan",
    "count_channels",
    "is_scan",
    "mask_name",
    "read_grid",
    "read_label",
    "read_scan",
    "case_id_from_path",
    "write_image",
    "write_mask",
]
