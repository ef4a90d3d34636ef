"""Figures of several recipes: grouped boxes, averaged curves, costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farvox.evaluation.schema import Estimate, Metrics, MetricSummary, QualityEstimates
from farvox.figures.boxes import grouped_box_plot
from farvox.figures.curves import compared_curves, mean_curve
from farvox.figures.style import label_colours
from farvox.report.cost import cost_figure, short_count
from farvox.runs.run import FoldRun
from farvox.runs.schema import FoldResult, RecipeRow, ValidationEvent

COLOURS = label_colours(["plain", "sparse"])


def _summary(dice: float | None) -> MetricSummary:
    return MetricSummary(foreground=QualityEstimates(dice=Estimate(mean=dice)))


def test_boxes_are_grouped_by_label_in_the_order_of_recipes() -> None:
    values = {"plain": {1: [0.5, 0.6, 0.7], 2: []}, "sparse": {1: [0.8, 0.9], 2: [0.4]}}
    figure = grouped_box_plot(values, {1: "liver", 2: "$spleen$"}, COLOURS)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["liver", "$spleen$"]
    medians = sorted(
        (np.mean(line.get_ydata()), line.get_xdata()[0]) for line in axes.lines if line.get_linewidth() == 2
    )
    heights, middle = zip(*medians, strict=True)
    assert middle == pytest.approx((0.6, 0.85, 0.4))
    assert heights == pytest.approx((-1 / 6, 1 / 6, 7 / 6))
    assert [text.get_text() for text in axes.texts] == ["undefined in every case"]
    from matplotlib.colors import to_hex

    assert [to_hex(dots.get_facecolor()[0]) for dots in axes.collections] == [
        COLOURS["plain"],
        COLOURS["sparse"],
        COLOURS["sparse"],
    ]


def test_mean_of_curves_covers_their_common_time() -> None:
    minutes, values = mean_curve([([0, 2, 4], [0.0, 0.4, 0.8]), ([1, 5], [0.0, 0.8])])
    assert minutes == pytest.approx([1, 4])
    # At 1: (0.2 + 0.0) / 2; at 4: (0.8 + 0.6) / 2.
    assert values == pytest.approx([0.1, 0.7])
    assert mean_curve([([1, 2, 3], [0.1, float("nan"), 0.3])]) == ([1, 3], [0.1, 0.3])
    assert mean_curve([([1, 2], [0.1, 0.3]), ([3, 4], [0.5, 0.7])]) == ([3], [pytest.approx(0.4)])
    assert mean_curve([([1], [float("nan")])]) == ([], [])
    assert mean_curve([([1, 2], [0.1, 0.3]), ([1.5], [0.9])]) == ([1, 2], [0.1, 0.3])


def test_each_recipe_has_a_thick_mean_and_thin_folds() -> None:
    def fold(name: str, minutes: list[float], dice: list[float]) -> FoldRun:
        events = tuple(ValidationEvent(seconds=60 * m, mean=d) for m, d in zip(minutes, dice, strict=True))
        metrics = Metrics(summary=_summary(dice[-1] + 0.1))
        return FoldRun(name, Path(), events, metrics=metrics, result=FoldResult(seconds=60 * minutes[-1] + 30))

    folds = {
        "plain": [fold("0", [1, 2], [0.2, 0.4]), fold("1", [1, 2], [0.4, 0.6])],
        "sparse": [fold("0", [1, 3], [0.5, 0.9])],
    }
    figure = compared_curves(
        {recipe: [fold.validation_curve for fold in runs] for recipe, runs in folds.items()},
        {recipe: [fold.end_point for fold in runs if fold.end_point] for recipe, runs in folds.items()},
        COLOURS,
    )
    assert figure is not None
    thick = {line.get_label(): line for line in figure.axes[0].lines if line.get_linewidth() > 2}
    np.testing.assert_allclose(thick["plain"].get_ydata(), [0.3, 0.5])
    np.testing.assert_allclose(thick["sparse"].get_xdata(), [1, 3])
    ends = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ends] == [
        (2.5, pytest.approx(0.6)),
        (3.5, pytest.approx(1.0)),
    ]
    assert sum(line.get_linewidth() < 1 for line in figure.axes[0].lines) == 2
    assert compared_curves({"plain": [FoldRun("0", Path()).validation_curve]}, {}, COLOURS) is None


def test_costs_that_differ_are_drawn() -> None:
    def row(name: str, dice: float | None, parameters: int | None, minutes: float) -> RecipeRow:
        return RecipeRow(
            name=name,
            summary=_summary(dice),
            training_seconds=60 * minutes,
            parameters=parameters,
            multiply_adds_per_voxel=500.0,
        )

    figure = cost_figure([row("plain", 0.7, 1000, 2), row("sparse", 0.8, 40_000, 3)], COLOURS)
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["training time (minutes)", "parameters"]
    points = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(1000, 0.7), (40_000, 0.8)]
    assert figure.axes[1].get_xscale() == "log"
    assert cost_figure([row("plain", None, 1000, 2)], COLOURS) is None


def test_counts_are_short() -> None:
    assert [short_count(n) for n in (900, 20_000, 1_500_000, 2e9)] == ["900", "20 k", "1.5 M", "2 G"]
