"""Whether a difference between two recipes may be chance: paired over cases, corrected for several comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from farvox.evaluation import bootstrap_interval
from farvox.runs.schema import PairedDifference


def paired_difference(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> PairedDifference:
    """Second minus first over the cases where both are defined, with Wilcoxon's signed-rank test, two-sided.

    Up to 50 pairs without ties or zeros the p-value is exact; beyond that it is as SciPy's `wilcoxon` chooses.

    Args:
        first: Value of each case, by id.
        second: Values of the other recipe.

    Returns:
        The difference. Without pairs all but the counts are None; with one pair there is no interval; p is 1 if no pair
        differs.
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
    """Holm's step-down correction: the smallest of n p-values times n, the next times n - 1, and so on, never falling.

    Args:
        p_values: Of all comparisons made; None where there was none to make, which does not count.

    Returns:
        Corrected p-values, at most 1, in the same order.
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        out[index] = highest
    return out


def minimum_p_value(pairs: int) -> float:
    """The least p-value that Wilcoxon's two-sided test can give for so many pairs: all differ to one side."""
    return min(1.0, math.ldexp(2.0, -pairs))
