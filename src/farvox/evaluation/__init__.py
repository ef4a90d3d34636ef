"""How good predictions are: figures per case and label, their statistics, and the files and table that show them."""

from farvox.evaluation.cases import ABSENT_RULE, METRICS, default_tolerance_mm, evaluate_case
from farvox.evaluation.files import evaluate_files, evaluate_folder
from farvox.evaluation.statistics import bootstrap_interval, build_metrics, summarise
from farvox.evaluation.tables import render_table, write_metrics

__all__ = [
    "ABSENT_RULE",
    "METRICS",
    "bootstrap_interval",
    "default_tolerance_mm",
    "evaluate_case",
    "evaluate_folder",
    "evaluate_files",
    "build_metrics",
    "render_table",
    "summarise",
    "write_metrics",
]
