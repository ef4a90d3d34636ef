"""Whether a difference between two recipes may be chance: paired over cases, corrected for several comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from farvox.evaluation import bootstrap_interval


def paired_difference(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, Any]:
    """Second minus first over the cases where both are defined, with Wilcoxon's signed-rank test, two-sided.

    Up to 50 pairs without ties or zeros the p-value is exact; beyond that it is as SciPy's `wilcoxon` chooses.

    Args:
        first: Figure of each case, by id.
        second: The same for the other recipe.

    Returns:
        `pairs`; `mean` of the differences with `low` and `high` of its 95 % bootstrap interval; `higher` and `lower`:
        cases in which the second is above and below the first; `statistic` (smaller sum of ranks) and `p`. Without
        pairs all but the counts are None; with one there is no interval; without a difference in any pair p is 1.
    """
    from scipy.stats import wilcoxon

    both = [(first[case], second[case]) for case in sorted(set(first) & set(second))]
    differences = np.array([b - a for a, b in both if a is not None and b is not None])
    out: dict[str, Any] = {
        "pairs": len(differences),
        "mean": float(differences.mean()) if len(differences) else None,
        "low": None,
        "high": None,
        "higher": int((differences > 0).sum()),
        "lower": int((differences < 0).sum()),
        "statistic": None,
        "p": None,
    }
    if len(differences) > 1:
        out["low"], out["high"] = bootstrap_interval(differences.tolist())
    if differences.any():
        found = wilcoxon(differences)
        out |= {"statistic": float(found.statistic), "p": float(found.pvalue)}
    elif len(differences):
        out["p"] = 1.0
    return out


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
