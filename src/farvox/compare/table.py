"""A comparison in the terminal: quality, cost and the difference from the first recipe, a row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def render_comparison(document: dict[str, Any]) -> Table:
    """Recipe, parameters, Dice with interval, HD95, minutes, and the paired difference with its corrected p-value.

    Args:
        document: As from `make_comparison`.
    """
    from rich.table import Table
    from rich.text import Text

    first, cases = document["recipes"][0]["name"], len(document["cases"])
    table = Table(
        caption=f"mean [95 % interval] over {cases} {'case' if cases == 1 else 'cases'}; "
        f"difference in Dice from {first}, p by Wilcoxon's signed-rank test"
        + (", corrected after Holm" if len(document["recipes"]) > 2 else "")
    )
    table.add_column("recipe", overflow="fold")
    for title in ("parameters", "Dice", "HD95, mm", "min", "difference", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in document["recipes"]:
        overall, difference = row["summary"]["foreground"], row["difference"] or {}
        table.add_row(
            Text(row["name"]),
            "–" if row["parameters"] is None else f"{row['parameters']:,}",
            _estimate(overall["dice"], ".3f"),
            _number(overall["hd95_mm"]["mean"], ".2f"),
            f"{row['training_minutes']:.1f}",
            _estimate(difference, "+.3f") if difference else "",
            _number(difference.get("p_holm"), ".2g") if difference else "",
        )
    return table


def _estimate(figures: dict[str, Any], form: str) -> str:
    interval = "" if figures["low"] is None else f"\n[{figures['low']:{form}}, {figures['high']:{form}}]"
    return _number(figures["mean"], form) + interval


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
