"""Learning curves against minutes of training: loss and Dice of each fold of a run, or the Dice of several recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from farvox.report.colours import FEW, label_colours
from farvox.report.figures import TEXT_COLOUR, new_figure, style_axes
from farvox.runs.run import FoldRun
from farvox.runs.schema import EpochEvent, ValidationEvent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(folds: Sequence[FoldRun]) -> Figure | None:
    """Loss (left) and mean validation Dice (right) of each fold over minutes; None when no fold has logged any.

    With more folds than can be told apart by colour, all lines share one.
    """
    panels = [(loss_curve, "training loss"), (validation_curve, "mean validation Dice")]
    series = [[(fold.name, *curve(fold)) for fold in folds] for curve, _ in panels]
    shown = [index for index, lines in enumerate(series) if any(minutes for _, minutes, _ in lines)]
    if not shown:
        return None
    few = len(folds) <= len(FEW)
    colours = label_colours([fold.name for fold in folds]) if few else dict.fromkeys((f.name for f in folds), FEW[1])
    figure = new_figure(10.5, 3.6, layout="constrained")
    for axes, index in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        curve, title = panels[index]
        marker = "o" if curve is validation_curve else None
        for name, minutes, values in series[index]:
            axes.plot(minutes, values, color=colours[name], linewidth=1.6, marker=marker, markersize=3.5, label=name)
        axes.set(xlabel="training time (minutes)", ylabel=title)
        axes.set_xlim(left=0)
        if curve is validation_curve:
            axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        style_axes(axes, "both")
        if few and len(folds) > 1:
            legend = axes.legend(
                title="fold", frameon=False, labelcolor=TEXT_COLOUR, fontsize=10, ncols=2 if len(folds) > 4 else 1
            )
            legend.get_title().set(color=TEXT_COLOUR, fontsize=10)
    return figure


def compared_curves(folds: Mapping[str, Sequence[FoldRun]], colours: Mapping[str, str]) -> Figure | None:
    """Validation Dice of all recipes over minutes: their mean over folds and seeds, each fold as a thin line.

    As in Fig. 4 (right) of the OBELISK paper (MIDL 2018). A diamond stands where the finished networks ended: mean
    minutes, and mean of the folds' Dice in `metrics.json`. None when no fold has logged any validation.

    Args:
        folds: Recipe → its folds.
        colours: Recipe → colour.
    """
    figure = new_figure(10.5, 4.2, layout="constrained")
    axes = figure.subplots()
    shown = False
    for recipe, own in folds.items():
        lines = [line for fold in own if (line := validation_curve(fold))[0]]
        for minutes, values in lines if len(lines) > 1 else ():
            axes.plot(minutes, values, color=colours[recipe], linewidth=0.8, alpha=0.4)
        if lines:
            shown = True
            minutes, values = mean_curve(lines)
            axes.plot(minutes, values, color=colours[recipe], linewidth=2.4, marker="o", markersize=3.5, label=recipe)
        if ended := [end for fold in own if (end := _end(fold))]:
            minutes, values = np.mean(ended, axis=0)
            axes.plot(minutes, values, "D", color=colours[recipe], markersize=8, markeredgecolor=TEXT_COLOUR, zorder=4)
    if not shown:
        return None
    axes.set(xlabel="training time (minutes)", ylabel="mean validation Dice")
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    style_axes(axes, "both")
    axes.legend(frameon=False, labelcolor=TEXT_COLOUR, fontsize=10, loc="best")
    return figure


def mean_curve(lines: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Mean of several (minutes, values) curves over the span that all of them cover, values between points linear.

    Gaps (NaN) of a curve are bridged; curves of one point do not count beside longer ones. Without a common span the
    mean is taken at the latest first point alone.
    """
    known = []
    for minutes, values in lines:
        kept = ~np.isnan(np.asarray(values, dtype=float))
        if kept.any():
            known.append((np.asarray(minutes, dtype=float)[kept], np.asarray(values, dtype=float)[kept]))
    known = [line for line in known if len(line[0]) > 1] or known
    if not known:
        return [], []
    start, stop = max(m[0] for m, _ in known), min(m[-1] for m, _ in known)
    points = np.linspace(start, max(start, stop), min(len(m) for m, _ in known)) if stop > start else np.array([start])
    if len(known) == 1:
        points = known[0][0]
    return points.tolist(), np.mean([np.interp(points, m, v) for m, v in known], axis=0).tolist()


def _end(fold: FoldRun) -> tuple[float, float] | None:
    """Minutes trained and mean foreground Dice of a complete fold."""
    dice = fold.metrics.summary.foreground.dice.mean if fold.metrics else None
    seconds = fold.result.seconds if fold.result else None
    return None if dice is None or seconds is None else (seconds / 60, dice)


def loss_curve(fold: FoldRun) -> tuple[list[float], list[float]]:
    """(minutes, values) of the training loss; NaN where undefined."""
    events = [event for event in fold.log if isinstance(event, EpochEvent)]
    return [event.seconds / 60 for event in events], [_or_nan(event.loss) for event in events]


def validation_curve(fold: FoldRun) -> tuple[list[float], list[float]]:
    """(minutes, values) of the mean validation Dice; NaN where undefined."""
    events = [event for event in fold.log if isinstance(event, ValidationEvent)]
    return [event.seconds / 60 for event in events], [_or_nan(event.mean) for event in events]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
