"""Figure of quality against cost, with a point for each recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from farvox.figures.style import TEXT_COLOUR, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from farvox.runs.schema import RecipeRow

PANELS = (
    ("training_seconds", "training time (minutes)"),
    ("parameters", "parameters"),
    ("multiply_adds_per_voxel", "multiply-adds per voxel"),
)
"""Attribute of a `RecipeRow` and its title."""


def cost_figure(rows: Sequence[RecipeRow], colours: Mapping[str, str]) -> Figure | None:
    """Mean Dice with its 95 % interval against minutes, parameters and multiply-adds (logarithmic).

    Parameters and multiply-adds are drawn if the recipes differ in them. None if Dice is undefined for all recipes.

    Args:
        rows: The recipes.
        colours: Recipe → colour.
    """
    defined = [row for row in rows if row.summary.foreground.dice.mean is not None]
    panels = [(key, title) for key, title in PANELS if _differ([_cost(row, key) for row in defined], key)]
    if not panels:
        return None
    figure = new_figure(10.5, 3.9, constrained=True)
    for axes, (key, title) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for row in defined:
            dice, cost, colour = row.summary.foreground.dice, _cost(row, key), colours[row.name]
            if not cost:
                continue
            if dice.ci_low is not None and dice.ci_high is not None:
                axes.plot([cost] * 2, [dice.ci_low, dice.ci_high], color=colour, linewidth=1.6)
            axes.plot(
                cost,
                dice.mean,
                "o",
                color=colour,
                markersize=9,
                markeredgecolor=TEXT_COLOUR,
                markeredgewidth=0.6,
                label=row.name,
                linestyle="none",
            )
        axes.set_xlabel(title)
        if key == "training_seconds":
            axes.set_ylabel("mean Dice")
            axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
        else:
            _log_axis(axes, [cost for row in defined if (cost := _cost(row, key))])
        style_axes(axes, "both")
    return figure


def _cost(row: RecipeRow, key: str) -> float | None:
    """A cost of a recipe; the training time in minutes."""
    cost: float | None = getattr(row, key)
    return cost / 60 if cost is not None and key == "training_seconds" else cost


def _differ(costs: Sequence[float | None], key: str) -> bool:
    distinct = {cost for cost in costs if cost}
    return bool(distinct) if key == "training_seconds" else len(distinct) > 1


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with margins on both sides and labels such as 20 k and 1 M, regardless of its length."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    wide = max(values) > 50 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _position: short_count(value))
    axes.xaxis.set_minor_formatter(NullFormatter())


def short_count(value: float) -> str:
    """A count as 900, 20 k or 1.5 M."""
    for unit, size in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
