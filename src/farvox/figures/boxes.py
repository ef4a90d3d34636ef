"""Box plots over cases, with each case as a point: per label, or per recipe within each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from farvox.figures.style import TEXT_COLOUR, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RASTER_FROM = 1500
"""Number of points above which they are rasterised to keep the page small."""


def box_plot(values: Mapping[int, Sequence[float]], names: Mapping[int, str], colours: Mapping[int, str]) -> Figure:
    """Dice per label: quartile box, median line, whiskers of up to 1.5 box lengths, and all cases as points.

    Args:
        values: Label value → Dice of each case where it is defined, 0 to 1; may be empty.
        names: Label value → name.
        colours: Label value → colour.
    """
    labels = list(values)
    row = 0.42 if len(labels) <= 12 else 0.26
    figure = new_figure(10.5, 0.9 + row * len(labels), constrained=True)
    axes = figure.subplots()
    raster = sum(map(len, values.values())) > RASTER_FROM
    for row_index, label in enumerate(labels):
        _box(axes, values[label], row_index, colours[label], width=0.62, dot=13 if row > 0.3 else 8, raster=raster)
    axes.set_yticks(range(len(labels)), [_short(names[label]) for label in labels], parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    _dice_axis(axes, list(values.values()))
    return figure


def grouped_box_plot(
    values: Mapping[str, Mapping[int, Sequence[float]]], names: Mapping[int, str], colours: Mapping[str, str]
) -> Figure:
    """Dice per label and recipe, grouped by label, as in Fig. 4 of the OBELISK paper (MIDL 2018).

    Args:
        values: Recipe → label value → Dice of each case where it is defined; all recipes have the same labels.
        names: Label value → name.
        colours: Recipe → colour.
    """
    recipes = list(values)
    labels = list(next(iter(values.values())))
    step = 1 / (len(recipes) + 1)
    boxes = len(recipes) * len(labels)
    row = 0.27 if boxes <= 40 else 0.18
    figure = new_figure(10.5, 1.1 + row * (boxes + len(labels)), constrained=True)
    axes = figure.subplots()
    everything = [dice for by_label in values.values() for dice in by_label.values()]
    raster = sum(map(len, everything)) > RASTER_FROM
    for number, recipe in enumerate(recipes):
        for row_index, label in enumerate(labels):
            height = row_index + (number + 1) * step - 0.5
            _box(axes, values[recipe][label], height, colours[recipe], width=0.8 * step, dot=8, raster=raster)
    axes.set_yticks(range(len(labels)), [_short(names[label]) for label in labels], parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for edge in range(1, len(labels)):
        axes.axhline(edge - 0.5, color=TEXT_COLOUR, alpha=0.2, linewidth=0.8)
    _dice_axis(axes, everything)
    return figure


def _box(
    axes: Axes, values: Sequence[float], height: float, colour: str, *, width: float, dot: float, raster: bool
) -> None:
    """One horizontal box at `height`, with its points scattered across it."""
    dice = np.asarray(values, dtype=float)
    if not dice.size:
        across = axes.get_yaxis_transform()
        text = axes.text(0.5, height, "undefined in every case", transform=across, color=TEXT_COLOUR, alpha=0.6)
        text.set(ha="center", va="center", fontsize=10 if width > 0.3 else 8)
        return
    line = {"color": TEXT_COLOUR, "linewidth": 1.0}
    axes.boxplot(
        [dice],
        positions=[height],
        orientation="horizontal",
        widths=width,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.45, "edgecolor": TEXT_COLOUR, "linewidth": 1.0},
        medianprops={"color": TEXT_COLOUR, "linewidth": 2.0},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
    )
    # Seeded, so that equal data give equal reports.
    offsets = np.random.default_rng(round(height * 1000) + 1000).uniform(-width / 3, width / 3, dice.size)
    dots = axes.scatter(dice, height + offsets, s=dot, color=colour, zorder=3)
    dots.set(edgecolor=TEXT_COLOUR, linewidth=0.4, alpha=0.85, rasterized=raster)


def _dice_axis(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    lowest = min((min(dice) for dice in values if len(dice)), default=0.0)
    axes.set_xlim(max(0.0, np.floor(lowest * 10 - 0.2) / 10) - 0.005, 1.005)
    axes.set_xlabel("Dice")
    style_axes(axes, "x")
    axes.tick_params(axis="y", length=0)


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
