"""Statistics over cases, compared with exact values and the normal approximation."""

from __future__ import annotations

import numpy as np
import pytest

from farvox.evaluation import (
    ABSENT_RULE,
    METRICS,
    QUALITY_METRICS,
    CaseMetrics,
    bootstrap_interval,
    build_metrics,
    summarise,
)
from farvox.evaluation.schema import Estimate, Failure, LabelInfo, label_infos
from farvox.labels import LabelTable

TABLE = LabelTable.from_mapping({1: "left", 2: "right"})
LABELS = label_infos(TABLE)


def case(name: str, first: float | None, second: float | None):
    defined = [figure for figure in (first, second) if figure is not None]
    mean = sum(defined) / len(defined) if defined else None
    rows = {value: dict.fromkeys(METRICS, figure) for value, figure in ((1, first), (2, second))}
    return CaseMetrics.model_validate({"case": name, "labels": rows, "mean": dict.fromkeys(QUALITY_METRICS, mean)})


def test_bootstrap_of_two_cases_spans_both():
    """Half of the resamples of {0, 1} average 0.5, a quarter each 0 and 1: far beyond the 2.5 % tails."""
    assert bootstrap_interval([0, 1]) == (0, 1)


def test_bootstrap_of_a_constant_has_no_width():
    assert bootstrap_interval([0.75] * 7) == (0.75, 0.75)


def test_bootstrap_of_one_different_case_in_ten_is_binomial():
    """The mean is a tenth of Binomial(10, 0.1): P(0) = 0.349, P(<=2) = 0.930, P(<=3) = 0.987: 0 and 0.3 bound 95 %."""
    assert bootstrap_interval([1] + [0] * 9) == pytest.approx((0, 0.3))


def test_bootstrap_of_many_cases_is_near_normal():
    values = np.random.default_rng(1).normal(5, 2, 400)
    half = 1.96 * values.std() / 20
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_same_seed_same_interval():
    values = np.random.default_rng(2).random(30)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_summary_of_three_cases_with_one_undefined_value():
    summary = summarise([case("a", 0.2, 0.4), case("b", 0.6, None), case("c", 0.7, 0.8)], LABELS)
    first = summary.labels[1].dice
    assert first.mean == pytest.approx(0.5)
    assert first.sd == pytest.approx(np.sqrt((0.3**2 + 0.1**2 + 0.2**2) / 2))
    assert first.ci_low == pytest.approx(0.2)
    assert first.ci_high == pytest.approx(0.7)
    assert first.cases == 3
    assert summary.labels[2].hd95_mm.mean == pytest.approx(0.6)
    assert summary.labels[2].hd95_mm.cases == 2
    assert summary.foreground.dice.mean == pytest.approx((0.3 + 0.6 + 0.75) / 3)
    assert set(summary.model_dump()["foreground"]) == set(QUALITY_METRICS)


def test_summary_of_one_case_and_of_none():
    one = summarise([case("a", 0.2, None)], LABELS).labels
    assert one[1].dice == Estimate(mean=0.2, cases=1)
    assert one[2].dice == Estimate()
    assert summarise([], LABELS).foreground.dice.cases == 0


def test_metrics_record_rule_tolerance_and_labels():
    document = build_metrics([case("a", 0.2, 0.4)], TABLE, 1.5, failed=[Failure(case="b", error="broken")])
    assert document.format == "farvox-metrics/2"
    assert document.absent_rule == ABSENT_RULE
    assert document.tolerance_mm == 1.5
    assert document.labels == (LabelInfo(value=1, name="left"), LabelInfo(value=2, name="right"))
    assert document.failed == (Failure(case="b", error="broken"),)
    assert document.summary == summarise(document.cases, LABELS)
