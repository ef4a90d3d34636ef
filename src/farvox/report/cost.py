"""Quality against cost: a point a recipe, as high as its Dice, as far right as it is expensive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from farvox.report.figures import TEXT_COLOUR, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("training_minutes", "training time (minutes)"),
    ("parameters", "parameters"),
    ("multiply_adds_per_voxel", "multiply-adds per voxel"),
)
"""Key of a cost in `comparison.json` and its title."""


def cost_figure(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> Figure | None:
    """Mean Dice with its 95 % interval against minutes, parameters and multiply-adds (logarithmic).

    Parameters and multiply-adds are drawn where recipes differ in them. None when no recipe has a Dice.

    Args:
        rows: "recipes" of `comparison.json`.
        colours: Recipe → colour.
    """
    rated = [row for row in rows if row["summary"]["foreground"]["dice"]["mean"] is not None]
    panels = [(key, title) for key, title in PANELS if _differ([row[key] for row in rated], key)]
    if not panels:
        return None
    figure = new_figure(10.5, 3.9, layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for row in rated:
            if not row[key]:
                continue
            dice = row["summary"]["foreground"]["dice"]
            colour = colours[row["name"]]
            low, high = (dice["mean"] if dice[end] is None else dice[end] for end in ("low", "high"))
            axes.plot([row[key]] * 2, [low, high], color=colour, linewidth=1.6)
            axes.plot(
                row[key],
                dice["mean"],
                "o",
                color=colour,
                markersize=9,
                markeredgecolor=TEXT_COLOUR,
                markeredgewidth=0.6,
                label=row["name"],
                linestyle="none",
            )
        axes.set_xlabel(title)
        if key == "training_minutes":
            axes.set_ylabel("mean Dice")
            axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
        else:
            _log_axis(axes, [row[key] for row in rated if row[key]])
        style_axes(axes, "both")
    return figure


def _differ(costs: Sequence[float | None], key: str) -> bool:
    known = {cost for cost in costs if cost}
    return bool(known) if key == "training_minutes" else len(known) > 1


def _log_axis(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with room on both sides and labels such as 20 k and 1 M, however short it is."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    wide = max(values) > 50 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _place: short_count(value))
    axes.xaxis.set_minor_formatter(NullFormatter())


def short_count(value: float) -> str:
    """A count in few characters: 900, 20 k, 1.5 M."""
    for unit, size in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
