"""Datasets: their cases, labels and folds, read from folders, checked before use."""

from farvox.data.check import CaseCheck, absent_labels, check_dataset
from farvox.data.dataset import Case, CaseFiles, Dataset
from farvox.data.load import load_case
from farvox.data.readers import read_dataset

__all__ = ["Case", "CaseCheck", "CaseFiles", "Dataset", "absent_labels", "check_dataset", "load_case", "read_dataset"]
