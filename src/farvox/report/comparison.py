"""The page of a comparison: the papers' table, differences, spread, curves and cost of several recipes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from farvox.report import texts
from farvox.report.boxes import grouped_box_plot
from farvox.report.colours import label_colours
from farvox.report.cost import cost_figure
from farvox.report.curves import compared_curves
from farvox.report.figures import svg
from farvox.report.html_page import note, whole
from farvox.report.page import ROWS_OPEN
from farvox.report.tables import duration, facts, grouped, legend, memory, number, swatch, table
from farvox.report.texts import DASH
from farvox.runs.run import FoldRun
from farvox.runs.schema import Comparison, Estimate, PairedDifference, RecipeRow


def comparison_page(comparison: Comparison, folds: Mapping[str, Sequence[FoldRun]]) -> str:
    """The whole page as HTML: no script, nothing to load.

    Args:
        comparison: The comparison.
        folds: Recipe → its folds, for the learning curves.
    """
    rows = comparison.recipes
    name = comparison.dataset or "dataset"
    colours = label_colours([row.name for row in rows])
    names = {label.value: label.name for label in comparison.labels}
    key = legend(colours.items())
    cases = len(comparison.cases)
    counted = (
        f"{len(rows)} {'recipe' if len(rows) == 1 else 'recipes'} over {cases} {'case' if cases == 1 else 'cases'}"
    )
    body = [
        f'<header><h1>{html.escape(name)}: comparison</h1><p class="lead">{counted} · farvox '
        f"{html.escape(comparison.version)}</p></header>",
        *(note(html.escape(line)) for line in comparison.notes),
        "<h2>Quality and cost</h2>",
        _quality(rows, names, colours),
        f'<p class="lead">{texts.COMPARED}</p>',
        _costs(rows, colours),
        *(_differences(rows, colours) if len(rows) > 1 else []),
        "<h2>Dice over cases</h2>",
        _spread(rows, names, colours, key),
        "<h2>Learning curves</h2>",
        _curves(folds, colours),
        "<h2>Quality against cost</h2>",
        _against(rows, colours, key),
        "<h2>Every case</h2>",
        _cases(comparison, colours),
        "<h2>How to read the numbers</h2>",
        f"<p>{texts.how_to_read(comparison.tolerance_mm)}</p><p><b>Absent structures.</b> "
        f"{html.escape(comparison.absent_rule)}</p>",
        *(_conditions(row, colours) for row in rows),
    ]
    return whole(f"{name} – farvox comparison", body)


def _quality(rows: Sequence[RecipeRow], names: Mapping[int, str], colours: Mapping[str, str]) -> str:
    """Mean Dice with interval, Dice of each label, HD95 and surface Dice; the best of each column in bold."""
    several = len(names) > 1
    blocks: list[tuple[str, int, bool, list[Estimate]]] = [
        ("mean Dice" if several else "Dice", 3, True, [r.summary.foreground.dice for r in rows])
    ]
    for value, name in names.items() if several else ():
        blocks.append((f"{html.escape(name)}, Dice", 3, True, [r.summary.labels[value].dice for r in rows]))
    blocks.append(("HD95 (mm)", 2, False, [r.summary.foreground.hd95_mm for r in rows]))
    blocks.append(("surface Dice", 3, True, [r.summary.foreground.surface_dice for r in rows]))
    columns = [_column(decimals, high, figures) for _, decimals, high, figures in blocks]
    lines = [[_named(row.name, colours), *cells] for row, *cells in zip(rows, *columns, strict=True)]
    return table(["recipe", *(title for title, *_ in blocks)], lines, "steep" if len(blocks) > 12 else "")


def _column(decimals: int, high_is_good: bool, estimates: Sequence[Estimate]) -> list[str]:
    means = [round(estimate.mean, decimals) for estimate in estimates if estimate.mean is not None]
    best = (max(means) if high_is_good else min(means)) if len(means) > 1 else None
    cells = []
    for estimate in estimates:
        mean, low, high = (number(v, decimals) for v in (estimate.mean, estimate.ci_low, estimate.ci_high))
        shown = f"<b>{mean}</b>" if best is not None and mean == number(best, decimals) else mean
        cells.append(shown if DASH in (mean, low) else f"{shown}<small>{low}{DASH}{high}</small>")
    return cells


def _costs(rows: Sequence[RecipeRow], colours: Mapping[str, str]) -> str:
    head = ["recipe", "network", "parameters", "multiply-adds<br>per voxel", "training<br>cases", "training time"]
    head += ["peak memory<br>of training", "prediction<br>of a scan"]
    lines = []
    for row in rows:
        seconds = row.prediction_seconds
        products = row.multiply_adds_per_voxel
        lines.append(
            [
                _named(row.name, colours),
                html.escape(row.network or DASH),
                grouped(row.parameters),
                DASH if products is None else grouped(round(products)),
                _range(row.training_cases),
                duration(row.training_seconds),
                memory(row.peak_memory_mb),
                DASH if seconds is None else f"{seconds:.2f} s",
            ]
        )
    return table(head, lines)


def _differences(rows: Sequence[RecipeRow], colours: Mapping[str, str]) -> list[str]:
    first = rows[0].name
    lines = []
    for row in rows[1:]:
        found = row.difference or PairedDifference(pairs=0)
        mean, low, high = (_signed(value) for value in (found.mean, found.ci_low, found.ci_high))
        interval = "" if DASH in (low, high) else f"<small>{low} to {high}</small>"
        lines.append(
            [
                _named(row.name, colours),
                mean + interval,
                f"{found.higher} of {found.pairs}",
                _p(found.p),
                _p(found.p_holm),
            ]
        )
    head = ["recipe", "difference in Dice", "better in", "p", "p, corrected"]
    return [
        f"<h2>Difference from {html.escape(first)}</h2>",
        table(head, lines),
        f'<p class="lead">{texts.DIFFERENCES}</p>',
    ]


def _spread(rows: Sequence[RecipeRow], names: Mapping[int, str], colours: Mapping[str, str], key: str) -> str:
    dice = {
        row.name: {value: [d for case in row.cases if (d := case.labels[value].dice) is not None] for value in names}
        for row in rows
    }
    picture = svg(grouped_box_plot(dice, names, colours), "Dice of each case by label and recipe")
    return f"<figure>{key}{picture}<figcaption>{texts.BOXES}</figcaption></figure>"


def _curves(folds: Mapping[str, Sequence[FoldRun]], colours: Mapping[str, str]) -> str:
    figure = compared_curves(folds, colours)
    if figure is None:
        return note("No log.jsonl with learning curves was found.")
    picture = svg(figure, "Validation Dice of all recipes over minutes")
    return f"<figure>{picture}<figcaption>{texts.COMPARED_CURVES}</figcaption></figure>"


def _against(rows: Sequence[RecipeRow], colours: Mapping[str, str], key: str) -> str:
    figure = cost_figure(rows, colours)
    if figure is None:
        return note("Dice is undefined for every recipe.")
    picture = svg(figure, "Mean Dice of each recipe against minutes, parameters and multiply-adds")
    caption = "A point is a recipe; its line is the 95 % interval of the mean over cases."
    return f"<figure>{key}{picture}<figcaption>{caption}</figcaption></figure>"


def _cases(comparison: Comparison, colours: Mapping[str, str]) -> str:
    """Mean Dice of each case by recipe, the hardest case first."""
    rows = comparison.recipes
    figures = {case: [row.cases[index].mean.dice for row in rows] for index, case in enumerate(comparison.cases)}

    def hardness(case: str) -> tuple[float, str]:
        known = [dice for dice in figures[case] if dice is not None]
        return (sum(known) / len(known) if known else 2.0, case)

    lines = [
        [html.escape(case), *(number(dice, 3) for dice in figures[case])] for case in sorted(figures, key=hardness)
    ]
    openness = " open" if len(lines) <= ROWS_OPEN else ""
    counted = "1 case" if len(lines) == 1 else f"{len(lines)} cases, mean Dice, hardest first"
    head = ["case", *(_named(row.name, colours) for row in rows)]
    return f"<details{openness}><summary>{counted}</summary>{table(head, lines)}</details>"


def _conditions(row: RecipeRow, colours: Mapping[str, str]) -> str:
    told = {
        "seeds": row.seeds or None,
        "duration": row.budget,
        "folds": list(row.folds),
        "multiply-adds counted on": " × ".join(map(str, row.reference_size or ())) or None,
        "runs": row.folders,
    }
    return f"<details><summary>{_named(row.name, colours)}: runs</summary>{facts(told)}</details>"


def _named(name: str, colours: Mapping[str, str]) -> str:
    return swatch(colours[name]) + html.escape(name)


def _range(pair: Sequence[int] | None) -> str:
    if not pair:
        return DASH
    low, high = pair
    return str(low) if low == high else f"{low}{DASH}{high}"


def _signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.3f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
