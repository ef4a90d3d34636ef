"""Significance tests, compared with rank sums computed by hand and with SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from farvox.comparison import holm, paired_difference
from farvox.comparison.paired import minimum_p_value
from farvox.evaluation import bootstrap_interval
from farvox.runs.schema import PairedDifference


def by_case(values: list[float | None]) -> dict[str, float | None]:
    return {f"case_{number:02d}": value for number, value in enumerate(values)}


def exact_p(differences: np.ndarray) -> tuple[float, float]:
    """Statistic and two-sided p-value by enumeration of all signs; no ties, no zeros."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    total = ranks.sum()
    statistic = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return float(statistic), sum(min(s, total - s) <= statistic for s in sums) / len(sums)


def test_the_p_value_is_that_of_all_signs_enumerated() -> None:
    first = [0.70, 0.71, 0.80, 0.65, 0.90, 0.77, 0.81, 0.60]
    gain = np.array([0.05, 0.02, -0.01, 0.07, 0.03, 0.11, -0.04, 0.09])
    difference = paired_difference(by_case(first), by_case((np.array(first) + gain).tolist()))
    statistic, p = exact_p(gain)
    assert (difference.statistic, difference.p) == (pytest.approx(statistic), pytest.approx(p))
    assert difference.pairs == 8
    assert (difference.higher, difference.lower) == (6, 2)
    assert difference.mean == pytest.approx(gain.mean())
    low, high = bootstrap_interval(gain.tolist())
    assert (difference.ci_low, difference.ci_high) == (pytest.approx(low), pytest.approx(high))


def test_five_gains_of_five_by_hand() -> None:
    difference = paired_difference(by_case([0.5] * 5), by_case([0.51, 0.52, 0.53, 0.54, 0.55]))
    assert difference.statistic == 0
    assert difference.p == pytest.approx(2 / 2**5) == minimum_p_value(5)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_agrees_with_scipy_and_is_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    first, second = (by_case([pair[n] for pair in pairs]) for n in (0, 1))
    difference, back = paired_difference(first, second), paired_difference(second, first)
    differences = np.array([b - a for a, b in pairs])
    if differences.any():
        assert difference.p == pytest.approx(wilcoxon(differences).pvalue)
    else:
        assert difference.p == 1
    assert back.mean == pytest.approx(-difference.mean, abs=1e-12)
    assert (back.higher, back.p) == (difference.lower, pytest.approx(difference.p))


def test_missing_and_undefined_cases_are_not_paired() -> None:
    first = {"a": 0.5, "b": 0.6, "c": None, "e": 0.9}
    second = {"a": 0.6, "b": 0.5, "c": 0.7, "d": 0.8, "e": None}
    difference = paired_difference(first, second)
    assert (difference.pairs, difference.higher, difference.lower) == (2, 1, 1)
    alone = paired_difference({"a": 0.5}, {"a": 0.75})
    assert (alone.pairs, alone.mean, alone.ci_low, alone.p) == (1, 0.25, None, 1.0)
    none = paired_difference({"a": None}, {"b": 1.0})
    assert none == PairedDifference(pairs=0)
    same = paired_difference(first, first)
    assert (same.mean, same.p, same.statistic) == (0, 1, None)


def test_holm_by_hand() -> None:
    # 3 · 0.01, 2 · 0.03, 1 · 0.04 raised to 0.06; the missing one is not counted.
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_is_between_uncorrected_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, c in zip(p_values, corrected, strict=True):
        assert c is not None
        assert p <= c <= min(1, p * len(p_values)) + 1e-15
    assert np.argsort(p_values, kind="stable").tolist() == sorted(
        range(len(p_values)), key=lambda index: (corrected[index], p_values[index], index)
    )
