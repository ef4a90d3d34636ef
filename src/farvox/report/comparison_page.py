"""The report of a comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from farvox.evaluation.schema import Estimate
from farvox.figures.boxes import grouped_box_plot
from farvox.figures.curves import compared_curves
from farvox.figures.style import label_colours, svg
from farvox.report.cost import cost_figure
from farvox.report.formats import format_number, render
from farvox.runs.run import FoldRun
from farvox.runs.schema import Comparison, RecipeRow


def comparison_page(comparison: Comparison, folds: Mapping[str, Sequence[FoldRun]]) -> str:
    """The report as HTML, without scripts or external resources.

    Args:
        comparison: The comparison.
        folds: Recipe → its folds, for the learning curves.
    """
    rows = comparison.recipes
    colours = label_colours([row.name for row in rows])
    names = {label.value: label.name for label in comparison.labels}
    dice = {
        row.name: {value: [d for case in row.cases if (d := case.labels[value].dice) is not None] for value in names}
        for row in rows
    }
    curves = compared_curves(
        {recipe: [fold.validation_curve for fold in runs] for recipe, runs in folds.items()},
        {recipe: [end for fold in runs if (end := fold.end_point)] for recipe, runs in folds.items()},
        colours,
    )
    cost = cost_figure(rows, colours)
    return render(
        "comparison.html.j2",
        comparison=comparison,
        name=comparison.dataset or "dataset",
        rows=rows,
        colours=colours,
        legend=list(colours.items()),
        quality=_quality(rows, names),
        boxes=svg(grouped_box_plot(dice, names, colours), "Dice of each case by label and recipe"),
        curves=svg(curves, "Validation Dice of all recipes over minutes") if curves else None,
        cost=svg(cost, "Mean Dice of each recipe against minutes, parameters and multiply-adds") if cost else None,
        cases=_cases(comparison),
    )


def _quality(rows: Sequence[RecipeRow], names: Mapping[int, str]) -> list[dict[str, object]]:
    """Title, decimals, estimates and best value of each column: Dice, Dice of each label, HD95, surface Dice."""
    several = len(names) > 1
    overall = [row.summary.foreground for row in rows]
    columns = [("mean Dice" if several else "Dice", 3, [estimates.dice for estimates in overall])]
    for value, name in names.items() if several else ():
        columns.append((f"{name}, Dice", 3, [row.summary.labels[value].dice for row in rows]))
    columns.append(("HD95 (mm)", 2, [estimates.hd95_mm for estimates in overall]))
    columns.append(("surface Dice", 3, [estimates.surface_dice for estimates in overall]))
    return [
        {"title": title, "decimals": decimals, "estimates": estimates, "best": _best(estimates, decimals, title)}
        for title, decimals, estimates in columns
    ]


def _best(estimates: Sequence[Estimate], decimals: int, title: str) -> str:
    """The best mean as text; empty if fewer than two are defined."""
    means = [estimate.mean for estimate in estimates if estimate.mean is not None]
    if len(means) < 2:
        return ""
    return format_number(min(means) if title.startswith("HD95") else max(means), decimals)


def _cases(comparison: Comparison) -> list[tuple[str, list[float | None]]]:
    """Case id and the mean Dice of each recipe, lowest first."""
    dice = {case: [row.cases[i].mean.dice for row in comparison.recipes] for i, case in enumerate(comparison.cases)}

    def mean_dice(case: str) -> tuple[float, str]:
        defined = [value for value in dice[case] if value is not None]
        return (sum(defined) / len(defined) if defined else 2.0, case)

    return [(case, dice[case]) for case in sorted(dice, key=mean_dice)]
