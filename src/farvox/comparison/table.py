"""A comparison in the terminal: quality, cost and the difference from the first recipe, a row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def render_comparison(document: dict[str, Any]) -> Table:
    """Recipe, parameters, Dice with interval, HD95, minutes, and the paired difference with its corrected p below.

    As many columns as fit 80 characters; the rest stands in the files.

    Args:
        document: As from `make_comparison`.
    """
    from rich.table import Table
    from rich.text import Text

    first, cases = document["recipes"][0]["name"], len(document["cases"])
    several = len(document["recipes"]) > 1
    compared = f"; difference in Dice from {first}, p by Wilcoxon's signed-rank test" if several else ""
    corrected = ", corrected after Holm" if len(document["recipes"]) > 2 else ""
    table = Table(caption=f"mean [95 % interval] over {cases} {'case' if cases == 1 else 'cases'}{compared}{corrected}")
    table.add_column("recipe", overflow="fold")
    for title in ("parameters", "Dice", "HD95, mm", "min", *(["difference"] if several else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for row in document["recipes"]:
        overall = row["summary"]["foreground"]
        cells = [
            "–" if row["parameters"] is None else f"{row['parameters']:,}",
            _estimate(overall["dice"]),
            _number(overall["hd95_mm"]["mean"], ".2f"),
            f"{row['training_minutes']:.1f}",
        ]
        if several:
            cells.append(_difference(row["difference"]))
        table.add_row(Text(row["name"]), *cells)
    return table


def _estimate(figures: dict[str, Any]) -> str:
    interval = "" if figures["low"] is None else f"\n[{figures['low']:.3f}, {figures['high']:.3f}]"
    return _number(figures["mean"], ".3f") + interval


def _difference(found: dict[str, Any] | None) -> str:
    return f"{_number(found['mean'], '+.3f')}\np {_number(found['p_holm'], '.2g')}" if found else ""


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
