"""Numbers as HTML: how each is rounded, what stands for an undefined one, and the tables of a report."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farvox.report.texts import DASH
from farvox.runs.run import CaseResult, RunFiles

DENSE_FROM = 12
"""Labels beyond which the table by label takes one line each."""


@dataclass(frozen=True)
class Metric:
    """A metric's key in the documents, its heading and the decimals shown (None: as many as its size asks for)."""

    key: str
    title: str
    decimals: int | None


METRICS = (
    Metric("dice", "Dice", 3),
    Metric("hd95_mm", "HD95 (mm)", 2),
    Metric("surface_dice", "surface Dice", 3),
    Metric("sensitivity", "sensitivity", 3),
    Metric("specificity", "specificity", 4),
    Metric("reference_ml", "reference (ml)", None),
    Metric("prediction_ml", "prediction (ml)", None),
)


def number(value: Any, decimals: int | None) -> str:
    """A number with fixed decimals, or for None with two, below 1 with three digits; an en dash when undefined."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    if decimals is None:
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:.{decimals}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of ready HTML cells; the first column heads its row, wide tables scroll by themselves."""
    top = "".join(f'<th scope="col"><span>{cell}</span></th>' for cell in head)
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    inner = f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inner}</table></div>'


def facts(pairs: Mapping[str, Any]) -> str:
    """Two columns, name and value; lists and tables inside are written out in short, unknown ones left out."""
    rows = "".join(
        f"<dt>{html.escape(key.replace('_', ' '))}</dt><dd>{html.escape(_plain(value))}</dd>"
        for key, value in pairs.items()
        if value is not None
    )
    return f"<dl>{rows}</dl>"


def legend(labels: Sequence[tuple[str, str]], colours: Mapping[str, str]) -> str:
    """Swatch and name of each label."""
    items = "".join(f"<li>{swatch(colours[value])}{html.escape(name)}</li>" for value, name in labels)
    return f'<ul class="legend">{items}</ul>'


def swatch(colour: str) -> str:
    """A small square of a colour."""
    return f'<i style="background:{colour}"></i>'


def label_table(run: RunFiles, colours: Mapping[str, str]) -> str:
    """Mean of every metric per label over cases, its 95 % interval and the spread; last row: mean of the labels.

    With many labels a row is one line and the spread shows when pointed at.
    """
    statistics = run.statistics
    metrics = [metric for metric in METRICS if any(metric.key in row for row in _blocks(statistics))]
    dense = len(run.labels) > DENSE_FROM
    rows = [
        [swatch(colours[value]) + html.escape(name), *_row(statistics.get("labels", {}).get(value, {}), metrics, dense)]
        for value, name in run.labels
    ]
    if len(rows) > 1:
        rows.append(["<b>mean of labels</b>", *_row(statistics.get("foreground", {}), metrics, dense)])
    return table(["label", *(metric.title for metric in metrics), "cases"], rows, "dense" if dense else "")


def case_table(cases: Sequence[CaseResult], labels: Sequence[tuple[str, str]]) -> str:
    """A row a case, worst mean Dice first: means over its labels, then the Dice of each label."""
    metrics = [metric for metric in METRICS if any(metric.key in (case.entry.get("mean") or {}) for case in cases)]
    several = len(labels) > 1
    head = ["case", "fold", *(f"{'mean ' if several else ''}{metric.title}" for metric in metrics)]
    if several:
        head += [f"{html.escape(name)}, Dice" for _, name in labels]
    rows = []
    for case in sorted(cases, key=lambda c: (c.value("dice") is None, c.value("dice") or 0.0, c.id)):
        row = [html.escape(case.id), html.escape(case.fold.name)]
        row += [number(case.value(metric.key), metric.decimals) for metric in metrics]
        if several:
            row += [number(case.value("dice", value), 3) for value, _ in labels]
        rows.append(row)
    return table(head, rows, "steep" if len(head) > 14 else "")


def fold_names(run: RunFiles) -> list[str]:
    """Folds of the summary, then those that only have a folder so far."""
    told = list(run.summary.get("folds", {}))
    return [*told, *(fold.name for fold in run.folds if fold.name not in told)]


def fold_facts(run: RunFiles, name: str) -> dict[str, Any]:
    """What the summary says of a fold, and where it says nothing, what the fold's log does."""
    logged = next((fold for fold in run.folds if fold.name == name), None)
    known = {**logged.last("start"), **logged.last("end")} if logged else {}
    return {**known, **run.summary.get("folds", {}).get(name, {})}


def fold_table(run: RunFiles) -> str:
    """A row a fold: cases, Dice, parameters, time, peak memory, and why training ended."""
    head = ["fold", "cases", "Dice", "parameters", "training time", "peak memory", "ended by"]
    rows = []
    for name in fold_names(run):
        known = fold_facts(run, name)
        row = [html.escape(name), grouped(known.get("cases")), number(known.get("dice"), 3)]
        row += [grouped(known.get("parameters")), duration(known.get("seconds")), memory(known.get("peak_memory_mb"))]
        rows.append([*row, html.escape(str(known.get("reason", "not ended")))])
    return table(head, rows)


def grouped(count: Any) -> str:
    """A count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f") if isinstance(count, int) else DASH


def duration(seconds: Any) -> str:
    """Seconds as "45 s", "8 min 0 s" or "2 h 5 min"."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(megabytes: Any) -> str:
    """Megabytes as "870 MB" or "1.43 GB"."""
    if not isinstance(megabytes, int | float) or not math.isfinite(megabytes):
        return DASH
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2f} GB"


def _row(block: Mapping[str, Any], metrics: Sequence[Metric], dense: bool) -> list[str]:
    cells = []
    for metric in metrics:
        values = block.get(metric.key) or {}
        mean, low, high, spread = (number(values.get(key), metric.decimals) for key in ("mean", "low", "high", "sd"))
        tail = "" if dense else f"<br>± {spread}"
        beside = f' <small title="± {spread}">{low}{DASH}{high}{tail}</small>'
        cells.append(mean if DASH in (mean, low, high, spread) else mean + beside)
    return [*cells, str((block.get("dice") or {}).get("cases", DASH))]


def _blocks(statistics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*statistics.get("labels", {}).values(), statistics.get("foreground", {})]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return DASH if value is None else str(value)
