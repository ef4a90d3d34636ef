"""Learning curves: training loss and validation Dice against minutes of training, a line a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from farvox.report.colours import FEW, label_colours
from farvox.report.figures import INK, new_figure, quiet
from farvox.report.run_files import Fold

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
        quiet(axes, "both")
        if few and len(folds) > 1:
            legend = axes.legend(
                title="fold", frameon=False, labelcolor=INK, fontsize=10, ncols=2 if len(folds) > 4 else 1
            )
            legend.get_title().set(color=INK, fontsize=10)
    return figure


def curve(fold: Fold, event: str, key: str) -> tuple[list[float], list[float]]:
    """(minutes, values) of a number in all log entries of a kind; undefined numbers become gaps."""
    entries = [entry for entry in fold.log if entry.get("event") == event and "seconds" in entry]
    values = [float("nan") if entry.get(key) is None else float(entry[key]) for entry in entries]
    return [entry["seconds"] / 60 for entry in entries], values
