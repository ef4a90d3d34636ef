"""Evaluation of predicted masks: metrics per case and label, statistics over cases, files and tables."""

from farvox.evaluation.api import evaluate
from farvox.evaluation.cases import default_tolerance_mm, evaluate_case
from farvox.evaluation.files import evaluate_files
from farvox.evaluation.schema import ABSENT_RULE, METRICS, QUALITY_METRICS, CaseMetrics, Metrics
from farvox.evaluation.statistics import bootstrap_interval, build_metrics, summarise

__all__ = [
    "ABSENT_RULE",
    "METRICS",
    "QUALITY_METRICS",
    "CaseMetrics",
    "Metrics",
    "bootstrap_interval",
    "build_metrics",
    "default_tolerance_mm",
    "evaluate",
    "evaluate_case",
    "evaluate_files",
    "summarise",
]
