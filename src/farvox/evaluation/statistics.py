"""From cases to one figure with its spread: mean, standard deviation and bootstrap interval; the whole document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from farvox.evaluation.cases import ABSENT_RULE, METRICS, QUALITY_METRICS
from farvox.labels import LabelTable

_RESAMPLES = 2000


def bootstrap_interval(figures: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean, from 2,000 resamples.

    Args:
        figures: One figure a case, at least one.
        seed: Equal seeds give equal intervals.
    """
    values = np.asarray(figures, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def summarise(cases: Sequence[dict[str, Any]], labels: LabelTable, seed: int = 0) -> dict[str, Any]:
    """Statistics over cases, the "summary" of `metrics.json`.

    Args:
        cases: Each with the "labels" and "mean" that `evaluate_case` gives.
        labels: Labels to report.
        seed: Of the bootstrap.

    Returns:
        `{"labels": {"<value>": {metric: entry}}, "foreground": {metric: entry}}` with entries
        `{"mean", "sd", "low", "high", "cases"}`. "foreground" takes each case's mean over labels; it has no volumes.
        Undefined figures are left out and `cases` counts the rest; without any all is None, and with one
        case `sd`, `low` and `high` are.
    """
    return {
        "labels": {
            str(value): {
                metric: _spread((case["labels"].get(str(value), {}).get(metric) for case in cases), seed)
                for metric in METRICS
            }
            for _, value, _ in labels.foreground
        },
        "foreground": {metric: _spread((case["mean"][metric] for case in cases), seed) for metric in QUALITY_METRICS},
    }


def build_metrics(
    cases: Sequence[dict[str, Any]],
    labels: LabelTable,
    tolerance_mm: float,
    *,
    failed: Sequence[dict[str, str]] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `metrics.json`.

    Args:
        cases: Each with "case", "prediction", "reference", "scan", "labels" and "mean".
        labels: Labels the figures belong to.
        tolerance_mm: Tolerance of surface Dice, mm.
        failed: `{"case", "error"}` of each case that could not be evaluated.
        notes: What was passed over or decided, one line each.
    """
    return {
        "format": "farvox-metrics/1",
        "rule": ABSENT_RULE,
        "tolerance_mm": tolerance_mm,
        "labels": [{"value": value, "name": name} for _, value, name in labels.foreground],
        "cases": list(cases),
        "failed": list(failed),
        "notes": list(notes),
        "summary": summarise(cases, labels),
    }


def _spread(figures: Iterable[float | None], seed: int) -> dict[str, float | int | None]:
    values = [figure for figure in figures if figure is not None]
    several = len(values) > 1
    low, high = bootstrap_interval(values, seed) if several else (None, None)
    return {
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if several else None,
        "low": low,
        "high": high,
        "cases": len(values),
    }
