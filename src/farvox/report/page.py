"""The page itself: one HTML file with everything inside, made from the documents of a run."""

from __future__ import annotations

import html
import json
from typing import Any

from farvox.evaluation.schema import Estimate, QualityEstimates
from farvox.report import texts
from farvox.report.boxes import box_plot
from farvox.report.cases import case_section, worst_median_best
from farvox.report.colours import label_colours
from farvox.report.curves import learning_curves
from farvox.report.figures import svg
from farvox.report.html_page import note, whole
from farvox.report.offsets import offsets_section
from farvox.report.tables import (
    case_table,
    duration,
    facts,
    fold_summaries,
    fold_table,
    grouped,
    label_table,
    legend,
    memory,
    number,
)
from farvox.report.texts import DASH
from farvox.runs.run import Run
from farvox.runs.schema import StartEvent

ROWS_OPEN = 12
"""Rows up to which the table of cases stands open."""

FACTS = ("model", "parameters", "device", "devices", "precision", "threads")
"""Attributes of a log's start event that are shown."""


def page(run: Run) -> str:
    """The whole report as HTML: no link, no script, nothing to load."""
    name = run.summary.dataset.name or run.path.resolve().name
    body = [
        f"<header><h1>{html.escape(name)}</h1>{_lead(run)}</header>",
        _tiles(run),
        *(_results(run) if run.cases or run.statistics else [note(texts.NO_CASES)]),
        "<h2>Learning curves</h2>",
        _curves(run),
        *offsets_section(run.folds),
        "<h2>Time and memory</h2>",
        fold_table(run),
        "<h2>Data, recipe, network</h2>",
        _facts(run),
        _settings(run),
        "<h2>How to read the numbers</h2>",
        _reading(run),
    ]
    return whole(f"{name} – farvox report", body)


def _lead(run: Run) -> str:
    """One line below the title: recipe, network, folds, version."""
    parts = {
        "recipe": run.summary.recipe,
        "network": _first_start(run).model,
        "folds": len(run.folds),
        "farvox": run.summary.version,
    }
    text = " · ".join(f"{key} {html.escape(str(value))}" for key, value in parts.items() if value)
    return f'<p class="lead">{text}</p>'


def _tiles(run: Run) -> str:
    """The headline numbers."""
    mean = run.statistics.foreground if run.statistics else QualityEstimates()
    folds = fold_summaries(run).values()
    seconds, peaks, counts = (
        [value for fold in folds if (value := getattr(fold, key)) is not None]
        for key in ("seconds", "peak_memory_mb", "parameters")
    )
    tolerance = run.tolerance_mm
    at = "" if tolerance is None else f" at {tolerance:.3g} mm"
    tiles = [
        ("foreground Dice", *_estimate(mean.dice, 3)),
        ("HD95", *_estimate(mean.hd95_mm, 2, " mm")),
        (f"surface Dice{at}", *_estimate(mean.surface_dice, 3)),
        ("validated cases", str(len(run.cases) or DASH), f"of {run.summary.dataset.cases or DASH}"),
        ("training time", duration(max(seconds, default=None)), "longest fold" if len(seconds) > 1 else ""),
        ("parameters", grouped(max(counts, default=None)), f"peak memory<br>{memory(max(peaks, default=None))}"),
    ]
    boxes = [f"<div><span>{title}</span><b>{value}</b><small>{below}</small></div>" for title, value, below in tiles]
    return f'<div class="tiles">{"".join(boxes)}</div>'


def _estimate(estimate: Estimate, decimals: int, unit: str = "") -> tuple[str, str]:
    """Mean, and its interval as text."""
    mean, low, high = (number(value, decimals) for value in (estimate.mean, estimate.ci_low, estimate.ci_high))
    if mean == DASH:
        return DASH, "undefined"
    return f"{mean}{unit}", "one case, no interval" if DASH in (low, high) else f"95 % interval<br>{low}{DASH}{high}"


def _results(run: Run) -> list[str]:
    """All about quality: table by label, spread over cases, pictures, table by case."""
    colours = label_colours([label.value for label in run.labels])
    cases = run.cases
    out = ["<h2>Results by label</h2>"]
    if run.statistics:
        out += [label_table(run, colours), f'<p class="lead">{texts.ESTIMATES}</p>']
    else:
        out.append(note(texts.NO_SUMMARY))
    out += [note(line) for line in _remarks(run)]
    if not cases:
        return [*out, note(texts.NO_LIST)]
    names = {label.value: label.name for label in run.labels}
    dice = {v: [d for case in cases if (d := case.value("dice", v)) is not None] for v in names}
    boxes = svg(box_plot(dice, names, colours), "Dice of each case by label")
    out += [
        "<h2>Dice over cases</h2>",
        f"<figure>{boxes}<figcaption>{texts.BOXES}</figcaption></figure>",
        "<h2>Worst, median and best case</h2>",
        f"<p>{texts.PICTURES}</p>",
    ]
    chosen = worst_median_best(cases)
    key = legend([(names[value], colour) for value, colour in colours.items()])
    out += [case_section(title.capitalize(), case, colours, key) for title, case in chosen]
    if not chosen:
        out.append(note("Dice is undefined in every case, so none can be chosen."))
    openness = " open" if len(cases) <= ROWS_OPEN else ""
    counted = "1 case" if len(cases) == 1 else f"{len(cases)} cases, worst first"
    listed = f"<details{openness}><summary>{counted}</summary>{case_table(cases, run.labels)}</details>"
    return [*out, "<h2>Every case</h2>", listed]


def _remarks(run: Run) -> list[str]:
    """Cases that could not be evaluated, and what the evaluation noted, once each."""
    failed = [f"Not evaluated: {failure.error}" for failure in run.metrics.failed]
    notes = [f"Note: {note}" for note in run.metrics.notes]
    return [html.escape(line) for line in dict.fromkeys([*failed, *notes])]


def _curves(run: Run) -> str:
    figure = learning_curves(run.folds)
    if figure is None:
        return note("No log.jsonl with learning curves was found.")
    return f"<figure>{svg(figure, 'Training loss and validation Dice over minutes')}</figure>"


def _facts(run: Run) -> str:
    start = _first_start(run)
    data: dict[str, Any] = {"name": run.summary.dataset.name or None, "cases": run.summary.dataset.cases}
    data["labels"] = [label.name for label in run.labels] or None
    for title, cases in (("training", start.training_cases), ("validation", start.validation_cases)):
        if cases is not None:
            data[f"{title}, fold {run.folds[0].name}"] = f"{len(cases)} cases"
    rest = start.model_dump(include=set(FACTS))
    return (
        f'<div class="columns"><section><h3>Data</h3>{facts(data)}</section><section><h3>Recipe and network</h3>'
        f"{facts({'recipe': run.summary.recipe, **rest})}</section></div>"
    )


def _settings(run: Run) -> str:
    """Resolved recipe and manifest of the first bundle, collapsed."""
    fold = next((fold for fold in run.folds if fold.recipe or fold.manifest), None)
    if fold is None:
        return note("No bundle was found, so the resolved settings are not shown.")
    manifest = ""
    if fold.manifest:
        content = json.loads((fold.bundle / "manifest.json").read_text(encoding="utf-8"))
        manifest = json.dumps(content, indent=2, ensure_ascii=False)
    texts = {"Resolved recipe": fold.recipe, "Manifest of the bundle": manifest}
    return "".join(
        f"<details><summary>{title}, fold {html.escape(fold.name)}</summary><pre>{html.escape(text)}</pre></details>"
        for title, text in texts.items()
        if text
    )


def _reading(run: Run) -> str:
    rule = run.absent_rule
    absent = (
        f"<b>Absent structures.</b> {html.escape(str(rule))}" if rule else "No file says how absent structures count."
    )
    made: dict[str, str] = next((f.manifest.versions for f in run.folds if f.manifest and f.manifest.versions), {})
    versions = {"farvox": run.summary.version, **made}
    return f"<p>{texts.how_to_read(run.tolerance_mm)}</p><p>{absent}</p><h3>Versions</h3>{facts(versions)}"


def _first_start(run: Run) -> StartEvent:
    return run.folds[0].start if run.folds else StartEvent()
