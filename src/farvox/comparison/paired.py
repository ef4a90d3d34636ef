"""Significance of differences between recipes: a paired test over cases, corrected for multiple comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from farvox.evaluation import bootstrap_interval
from farvox.runs.schema import PairedDifference


def paired_difference(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> PairedDifference:
    """Difference of a metric between two recipes (second minus first), with Wilcoxon's two-sided signed-rank test.

    The p-value is exact for up to 50 pairs without ties or zeros; otherwise it is an approximation, as in
    `scipy.stats.wilcoxon`.

    Args:
        first: Value of each case, by id.
        second: Values of the other recipe.

    Returns:
        The difference over the cases in which both are defined. Without pairs only the counts are defined; with one
        pair there is no interval; p is 1 if no pair differs.
    """
    from scipy.stats import wilcoxon

    both = [(first[case], second[case]) for case in sorted(set(first) & set(second))]
    differences = np.array([b - a for a, b in both if a is not None and b is not None])
    low, high = bootstrap_interval(differences.tolist()) if len(differences) > 1 else (None, None)
    test = wilcoxon(differences) if differences.any() else None
    return PairedDifference(
        pairs=len(differences),
        mean=float(differences.mean()) if len(differences) else None,
        ci_low=low,
        ci_high=high,
        higher=int((differences > 0).sum()),
        lower=int((differences < 0).sum()),
        statistic=float(test.statistic) if test else None,
        p=float(test.pvalue) if test else 1.0 if len(differences) else None,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction for multiple comparisons.

    The smallest of n p-values is multiplied by n, the next by n - 1, and so on; the results never decrease.

    Args:
        p_values: p-values of all comparisons; None for a comparison without pairs, which is not counted.

    Returns:
        Corrected p-values, at most 1, in the same order.

    Example:
        >>> holm([0.25, 0.125])
        [0.25, 0.25]
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        corrected[index] = highest
    return corrected


def minimum_p_value(pairs: int) -> float:
    """Smallest possible p-value of Wilcoxon's two-sided test: all pairs differ in one direction."""
    return min(1.0, math.ldexp(2.0, -pairs))
