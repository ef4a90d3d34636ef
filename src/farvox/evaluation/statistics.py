"""Statistics over cases: mean, standard deviation and bootstrap interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from farvox.evaluation.schema import (
    METRICS,
    QUALITY_METRICS,
    CaseMetrics,
    Estimate,
    Failure,
    LabelInfo,
    MetricEstimates,
    Metrics,
    MetricSummary,
    QualityEstimates,
    label_infos,
)
from farvox.labels import LabelTable

_RESAMPLES = 2000


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean, from 2,000 resamples.

    Args:
        values: One value per case, at least one.
        seed: Seed of the resampling; equal seeds give equal intervals.
    """
    array = np.asarray(values, dtype=np.float64)
    samples = np.random.default_rng(seed).integers(len(array), size=(_RESAMPLES, len(array)))
    low, high = np.percentile(array[samples].mean(1), [2.5, 97.5])
    return float(low), float(high)


def summarise(cases: Sequence[CaseMetrics], labels: Sequence[LabelInfo], seed: int = 0) -> MetricSummary:
    """Statistics over cases. Undefined values are left out, and `Estimate.cases` counts the others.

    Args:
        cases: Metrics of each case.
        labels: Labels to report.
        seed: Seed of the bootstrap.
    """

    def estimate(value: int, metric: str) -> Estimate:
        return _describe((case.labels[value][metric] for case in cases if value in case.labels), seed)

    return MetricSummary(
        labels={
            label.value: MetricEstimates(**{metric: estimate(label.value, metric) for metric in METRICS})
            for label in labels
        },
        foreground=QualityEstimates(
            **{metric: _describe((case.mean[metric] for case in cases), seed) for metric in QUALITY_METRICS}
        ),
    )


def build_metrics(
    cases: Sequence[CaseMetrics],
    labels: LabelTable,
    tolerance_mm: float,
    *,
    failed: Sequence[Failure] = (),
    notes: Sequence[str] = (),
) -> Metrics:
    """Metrics of cases with their summary.

    Args:
        cases: Metrics of each case.
        labels: The label table.
        tolerance_mm: Tolerance of surface Dice, mm.
        failed: Cases that could not be evaluated.
        notes: Remarks, one line each.
    """
    infos = label_infos(labels)
    return Metrics(
        tolerance_mm=tolerance_mm,
        labels=infos,
        cases=tuple(cases),
        failed=tuple(failed),
        notes=tuple(notes),
        summary=summarise(cases, infos),
    )


def _describe(values: Iterable[float | None], seed: int) -> Estimate:
    defined = [value for value in values if value is not None]
    if not defined:
        return Estimate()
    if len(defined) == 1:
        return Estimate(mean=float(defined[0]), cases=1)
    low, high = bootstrap_interval(defined, seed)
    return Estimate(
        mean=float(np.mean(defined)),
        sd=float(np.std(defined, ddof=1)),
        ci_low=low,
        ci_high=high,
        cases=len(defined),
    )
