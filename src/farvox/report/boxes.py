"""Spread over cases: a box a label with every case as a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from farvox.report.figures import INK, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RASTER_FROM = 1500
"""Points beyond which they are drawn as pixels, to keep the page small."""


def box_plot(values: Mapping[str, Sequence[float]], names: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
    """Dice per label: box from first to third quartile, median line, whiskers to 1.5 box lengths, all cases.

    Args:
        values: Label value → Dice of each case where it is defined, 0 to 1; may be empty.
        names: Label value → name.
        colours: Label value → colour.
    """
    labels = list(values)
    row = 0.42 if len(labels) <= 12 else 0.26
    figure = new_figure(10.5, 0.9 + row * len(labels), layout="constrained")
    axes = figure.subplots()
    points = sum(map(len, values.values()))
    for place, label in enumerate(labels):
        dice = np.asarray(values[label], dtype=float)
        if not dice.size:
            axes.text(
                0.5,
                place,
                "undefined in every case",
                transform=axes.get_yaxis_transform(),
                color=INK,
                alpha=0.6,
                ha="center",
                va="center",
            )
            continue
        line = {"color": INK, "linewidth": 1.0}
        axes.boxplot(
            [dice],
            positions=[place],
            orientation="horizontal",
            widths=0.62,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colours[label], "alpha": 0.45, "edgecolor": INK, "linewidth": 1.0},
            medianprops={"color": INK, "linewidth": 2.0},
            whiskerprops=line,
            capprops=line,
            manage_ticks=False,
        )
        # The same offsets each time, so that a report made twice is the same report.
        offsets = np.random.default_rng(place).uniform(-0.2, 0.2, dice.size)
        dots = axes.scatter(dice, place + offsets, s=13 if row > 0.3 else 8, color=colours[label], zorder=3)
        dots.set(edgecolor=INK, linewidth=0.4, alpha=0.85, rasterized=points > RASTER_FROM)
    axes.set_yticks(range(len(labels)), [_short(names[label]) for label in labels], parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    lowest = min((min(dice) for dice in values.values() if len(dice)), default=0.0)
    axes.set_xlim(max(0.0, np.floor(lowest * 10 - 0.2) / 10) - 0.005, 1.005)
    axes.set_xlabel("Dice")
    quiet(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
