"""Datasets: their cases, labels and folds, read from folders, checked before use."""

from farvox.data.checks import CaseCheck, Check, check
from farvox.data.dataset import Case, CasePaths, Dataset, LoadedCase
from farvox.data.load import load_case
from farvox.data.readers import Reader, read_dataset, register_reader

__all__ = [
    "Case",
    "CaseCheck",
    "CasePaths",
    "Check",
    "Dataset",
    "LoadedCase",
    "Reader",
    "check",
    "load_case",
    "read_dataset",
    "register_reader",
]
