"""Learning curves against minutes of training: loss and Dice of each fold of a run, or the Dice of several recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from farvox.report.colours import FEW, label_colours
from farvox.report.figures import TEXT_COLOUR, new_figure, style_axes
from farvox.runs.run import Fold

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(folds: Sequence[Fold]) -> Figure | None:
    """Loss (left) and mean validation Dice (right) of each fold over minutes; None when no fold has logged any.

    With more folds than can be told apart by colour, all lines share one.
    """
    panels = [("epoch", "loss", "training loss"), ("validation", "mean", "mean validation Dice")]
    series = [[(fold.name, *curve(fold, event, key)) for fold in folds] for event, key, _ in panels]
    shown = [index for index, lines in enumerate(series) if any(minutes for _, minutes, _ in lines)]
    if not shown:
        return None
    few = len(folds) <= len(FEW)
    colours = label_colours([fold.name for fold in folds]) if few else dict.fromkeys((f.name for f in folds), FEW[1])
    figure = new_figure(10.5, 3.6, layout="constrained")
    for axes, index in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        event, _, title = panels[index]
        marker = "o" if event == "validation" else None
        for name, minutes, values in series[index]:
            axes.plot(minutes, values, color=colours[name], linewidth=1.6, marker=marker, markersize=3.5, label=name)
        axes.set(xlabel="training time (minutes)", ylabel=title)
        axes.set_xlim(left=0)
        if event == "validation":
            axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        style_axes(axes, "both")
        if few and len(folds) > 1:
            legend = axes.legend(
                title="fold", frameon=False, labelcolor=TEXT_COLOUR, fontsize=10, ncols=2 if len(folds) > 4 else 1
            )
            legend.get_title().set(color=TEXT_COLOUR, fontsize=10)
    return figure


def compared_curves(folds: Mapping[str, Sequence[Fold]], colours: Mapping[str, str]) -> Figure | None:
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
        lines = [line for fold in own if (line := curve(fold, "validation", "mean"))[0]]
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


def _end(fold: Fold) -> tuple[float, float] | None:
    """Minutes trained and mean foreground Dice of a finished fold."""
    dice = fold.metrics.get("summary", {}).get("foreground", {}).get("dice", {}).get("mean")
    seconds = fold.done.get("seconds")
    return None if dice is None or seconds is None else (seconds / 60, dice)


def curve(fold: Fold, event: str, key: str) -> tuple[list[float], list[float]]:
    """(minutes, values) of a number in all log entries of a kind; undefined numbers become gaps."""
    entries = [entry for entry in fold.log if entry.get("event") == event and "seconds" in entry]
    values = [float("nan") if entry.get(key) is None else float(entry[key]) for entry in entries]
    return [entry["seconds"] / 60 for entry in entries], values
