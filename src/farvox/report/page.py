"""The page itself: one HTML file with everything inside, made from the documents of a run."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

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
    fold_facts,
    fold_names,
    fold_table,
    grouped,
    label_table,
    legend,
    memory,
    number,
)
from farvox.report.texts import DASH
from farvox.runs.run import RunFiles

ROWS_OPEN = 12
"""Rows up to which the table of cases stands open."""

NOT_FACTS = ("event", "fold", "train", "validation", "dataset", "recipe")
"""Entries of a log's start that are shown elsewhere."""


def page(run: RunFiles) -> str:
    """The whole report as HTML: no link, no script, nothing to load."""
    name = str(_dataset(run).get("name", run.folder.resolve().name))
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


def _lead(run: RunFiles) -> str:
    """One line below the title: recipe, network, folds, version."""
    parts = {
        "recipe": run.summary.get("recipe"),
        "network": _first_start(run).get("model"),
        "folds": len(run.folds),
        "farvox": run.summary.get("version"),
    }
    text = " · ".join(f"{key} {html.escape(str(value))}" for key, value in parts.items() if value)
    return f'<p class="lead">{text}</p>'


def _tiles(run: RunFiles) -> str:
    """The headline numbers."""
    mean = run.statistics.get("foreground", {})
    costs = [fold_facts(run, name) for name in fold_names(run)]
    seconds, peaks, counts = (
        [cost[key] for cost in costs if cost.get(key) is not None]
        for key in ("seconds", "peak_memory_mb", "parameters")
    )
    tolerance = run.fact("tolerance_mm")
    at = "" if tolerance is None else f" at {tolerance:.3g} mm"
    tiles = [
        ("foreground Dice", *_estimate(mean.get("dice"), 3)),
        ("HD95", *_estimate(mean.get("hd95_mm"), 2, " mm")),
        (f"surface Dice{at}", *_estimate(mean.get("surface_dice"), 3)),
        ("validated cases", str(len(run.cases) or DASH), f"of {_dataset(run).get('cases', DASH)}"),
        ("training time", duration(max(seconds, default=None)), "longest fold" if len(seconds) > 1 else ""),
        ("parameters", grouped(max(counts, default=None)), f"peak memory<br>{memory(max(peaks, default=None))}"),
    ]
    boxes = [f"<div><span>{title}</span><b>{value}</b><small>{below}</small></div>" for title, value, below in tiles]
    return f'<div class="tiles">{"".join(boxes)}</div>'


def _estimate(block: Mapping[str, Any] | None, decimals: int, unit: str = "") -> tuple[str, str]:
    """Mean, and its interval as text."""
    mean, low, high = (number((block or {}).get(key), decimals) for key in ("mean", "low", "high"))
    if mean == DASH:
        return DASH, "undefined"
    return f"{mean}{unit}", "one case, no interval" if DASH in (low, high) else f"95 % interval<br>{low}{DASH}{high}"


def _results(run: RunFiles) -> list[str]:
    """All about quality: table by label, spread over cases, pictures, table by case."""
    colours = label_colours([value for value, _ in run.labels])
    cases = run.cases
    out = ["<h2>Results by label</h2>"]
    if run.statistics:
        out += [label_table(run, colours), f'<p class="lead">{texts.ESTIMATES}</p>']
    else:
        out.append(note(texts.NO_SUMMARY))
    out += [note(line) for line in _remarks(run)]
    if not cases:
        return [*out, note(texts.NO_LIST)]
    dice = {v: [d for case in cases if (d := case.value("dice", v)) is not None] for v, _ in run.labels}
    boxes = svg(box_plot(dice, dict(run.labels), colours), "Dice of each case by label")
    out += [
        "<h2>Dice over cases</h2>",
        f"<figure>{boxes}<figcaption>{texts.BOXES}</figcaption></figure>",
        "<h2>Worst, median and best case</h2>",
        f"<p>{texts.PICTURES}</p>",
    ]
    chosen = worst_median_best(cases)
    key = legend(run.labels, colours)
    out += [case_section(title.capitalize(), case, colours, key) for title, case in chosen]
    if not chosen:
        out.append(note("Dice is undefined in every case, so none can be chosen."))
    openness = " open" if len(cases) <= ROWS_OPEN else ""
    counted = "1 case" if len(cases) == 1 else f"{len(cases)} cases, worst first"
    listed = f"<details{openness}><summary>{counted}</summary>{case_table(cases, run.labels)}</details>"
    return [*out, "<h2>Every case</h2>", listed]


def _remarks(run: RunFiles) -> list[str]:
    """Cases that could not be evaluated, and what the evaluation noted, once each."""
    documents = [fold.metrics for fold in run.folds]
    failed = [f"Not evaluated: {entry['error']}" for document in documents for entry in document.get("failed", [])]
    notes = [f"Note: {note}" for document in documents for note in document.get("notes", [])]
    return [html.escape(line) for line in dict.fromkeys([*failed, *notes])]


def _curves(run: RunFiles) -> str:
    figure = learning_curves(run.folds)
    if figure is None:
        return note("No log.jsonl with learning curves was found.")
    return f"<figure>{svg(figure, 'Training loss and validation Dice over minutes')}</figure>"


def _facts(run: RunFiles) -> str:
    start = _first_start(run)
    data = {**_dataset(run), "labels": [name for _, name in run.labels] or None}
    for key in ("train", "validation"):
        if start.get(key) is not None:
            data[f"{key}, fold {run.folds[0].name}"] = f"{len(start[key])} cases"
    rest = {key: value for key, value in start.items() if key not in NOT_FACTS}
    return (
        f'<div class="columns"><section><h3>Data</h3>{facts(data)}</section><section><h3>Recipe and network</h3>'
        f"{facts({'recipe': run.summary.get('recipe'), **rest})}</section></div>"
    )


def _settings(run: RunFiles) -> str:
    """Resolved recipe and manifest of the first bundle, collapsed."""
    fold = next((fold for fold in run.folds if fold.recipe or fold.manifest), None)
    if fold is None:
        return note("No bundle was found, so the resolved settings are not shown.")
    manifest = json.dumps(fold.manifest, indent=2, ensure_ascii=False) if fold.manifest else ""
    texts = {"Resolved recipe": fold.recipe, "Manifest of the bundle": manifest}
    return "".join(
        f"<details><summary>{title}, fold {html.escape(fold.name)}</summary><pre>{html.escape(text)}</pre></details>"
        for title, text in texts.items()
        if text
    )


def _reading(run: RunFiles) -> str:
    rule = run.fact("rule")
    absent = (
        f"<b>Absent structures.</b> {html.escape(str(rule))}" if rule else "No file says how absent structures count."
    )
    made: dict[str, str] = next((fold.manifest["versions"] for fold in run.folds if fold.manifest.get("versions")), {})
    versions = {"farvox": run.summary.get("version"), **made}
    return f"<p>{texts.how_to_read(run.fact('tolerance_mm'))}</p><p>{absent}</p><h3>Versions</h3>{facts(versions)}"


def _dataset(run: RunFiles) -> dict[str, Any]:
    return run.summary.get("dataset", {})


def _first_start(run: RunFiles) -> dict[str, Any]:
    return run.folds[0].last("start") if run.folds else {}
