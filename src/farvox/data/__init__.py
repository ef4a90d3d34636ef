"""Files in, cases out: formats, dataset layouts, checks."""

from farvox.data.case import Case, CaseFiles, Dataset, Scan
from farvox.data.check import CaseCheck, absent_labels, check_dataset
from farvox.data.io import SUFFIXES, is_scan, mask_name, read_grid, read_label, read_scan, scan_stem, write_mask
from farvox.data.load import load_case
from farvox.data.readers import read_dataset

__all__ = [
    "SUFFIXES",
    "Case",
    "CaseCheck",
    "CaseFiles",
    "Dataset",
    "Scan",
    "absent_labels",
    "check_dataset",
    "is_scan",
    "load_case",
    "mask_name",
    "read_dataset",
    "read_grid",
    "read_label",
    "read_scan",
    "scan_stem",
    "write_mask",
]
