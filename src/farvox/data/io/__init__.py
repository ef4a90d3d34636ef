"""Scans, labels and masks as files: NIfTI, MetaImage, NRRD and DICOM series."""

from farvox.data.io.mask import write_mask
from farvox.data.io.names import SUFFIXES, is_scan, mask_name, scan_stem
from farvox.data.io.scan import count_channels, read_grid, read_label, read_scan

__all__ = [
    "SUFFIXES",
    "count_channels",
    "is_scan",
    "mask_name",
    "read_grid",
    "read_label",
    "read_scan",
    "scan_stem",
    "write_mask",
]
