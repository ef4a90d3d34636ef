"""Learning curves over training time: of the folds of a run, or of several recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from farvox.figures.style import FEW_COLOURS, TEXT_COLOUR, label_colours, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[list[float], list[float]]
"""Minutes of training, and values; NaN where undefined."""


def learning_curves(losses: Mapping[str, Curve], dices: Mapping[str, Curve]) -> Figure | None:
    """Training loss (left) and mean validation Dice (right) of each fold; None if all curves are empty.

    If there are too many folds to distinguish by colour, all lines have the same.

    Args:
        losses: Fold → training loss.
        dices: Fold → mean validation Dice.
    """
    panels = [
        (curves, title)
        for curves, title in ((losses, "training loss"), (dices, "mean validation Dice"))
        if any(minutes for minutes, _ in curves.values())
    ]
    if not panels:
        return None
    few = len(losses) <= len(FEW_COLOURS)
    colours = label_colours(list(losses)) if few else dict.fromkeys(losses, FEW_COLOURS[1])
    figure = new_figure(10.5, 3.6, constrained=True)
    for axes, (curves, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        marker = "o" if curves is dices else None
        for name, (minutes, values) in curves.items():
            axes.plot(minutes, values, color=colours[name], linewidth=1.6, marker=marker, markersize=3.5, label=name)
        axes.set(xlabel="training time (minutes)", ylabel=title)
        axes.set_xlim(left=0)
        if curves is dices:
            axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        style_axes(axes, "both")
        if few and len(losses) > 1:
            columns = 2 if len(losses) > 4 else 1
            legend = axes.legend(title="fold", frameon=False, labelcolor=TEXT_COLOUR, fontsize=10, ncols=columns)
            legend.get_title().set(color=TEXT_COLOUR, fontsize=10)
    return figure


def compared_curves(
    curves: Mapping[str, Sequence[Curve]], ends: Mapping[str, Sequence[tuple[float, float]]], colours: Mapping[str, str]
) -> Figure | None:
    """Validation Dice of several recipes: the mean over folds and seeds, and each fold as a thin line.

    As in Fig. 4 (right) of the OBELISK paper (MIDL 2018). A diamond marks the mean of the end points. None if all
    curves are empty.

    Args:
        curves: Recipe → mean validation Dice of each fold.
        ends: Recipe → minutes and mean Dice of each trained network.
        colours: Recipe → colour.
    """
    figure = new_figure(10.5, 4.2, constrained=True)
    axes = figure.subplots()
    empty = True
    for recipe, folds in curves.items():
        lines = [line for line in folds if line[0]]
        for minutes, values in lines if len(lines) > 1 else ():
            axes.plot(minutes, values, color=colours[recipe], linewidth=0.8, alpha=0.4)
        if lines:
            empty = False
            minutes, values = mean_curve(lines)
            axes.plot(minutes, values, color=colours[recipe], linewidth=2.4, marker="o", markersize=3.5, label=recipe)
        if ends.get(recipe):
            minute, dice = np.mean(ends[recipe], axis=0)
            axes.plot(minute, dice, "D", color=colours[recipe], markersize=8, markeredgecolor=TEXT_COLOUR, zorder=4)
    if empty:
        return None
    axes.set(xlabel="training time (minutes)", ylabel="mean validation Dice")
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    style_axes(axes, "both")
    axes.legend(frameon=False, labelcolor=TEXT_COLOUR, fontsize=10, loc="best")
    return figure


def mean_curve(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Curve:
    """Mean of several curves over the time that all of them cover, with linear interpolation.

    NaN values are skipped. Curves of one point are ignored if there are longer ones. Without a common time the mean is
    taken at the latest first point.
    """
    defined = []
    for minutes, values in curves:
        finite = ~np.isnan(np.asarray(values, dtype=float))
        if finite.any():
            defined.append((np.asarray(minutes, dtype=float)[finite], np.asarray(values, dtype=float)[finite]))
    defined = [curve for curve in defined if len(curve[0]) > 1] or defined
    if not defined:
        return [], []
    start, stop = max(m[0] for m, _ in defined), min(m[-1] for m, _ in defined)
    count = min(len(m) for m, _ in defined)
    points = np.linspace(start, max(start, stop), count) if stop > start else np.array([start])
    if len(defined) == 1:
        points = defined[0][0]
    return points.tolist(), np.mean([np.interp(points, m, v) for m, v in defined], axis=0).tolist()
