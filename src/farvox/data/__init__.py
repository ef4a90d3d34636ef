"""Datasets: their cases, labels and folds, read from folders, checked before use."""

from farvox.data.check import CaseCheck, check_dataset, labels_never_present
from farvox.data.dataset import Case, CasePaths, Dataset
from farvox.data.load import load_case
from farvox.data.readers import read_dataset

__all__ = [
    "Case",
    "CaseCheck",
    "CasePaths",
    "Dataset",
    "labels_never_present",
    "check_dataset",
    "load_case",
    "read_dataset",
]
