"""Numbers as HTML: how each is rounded, what stands for an undefined one, and the tables of a report."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from farvox.evaluation.schema import METRIC_INFOS, Estimate, MetricEstimates, QualityEstimates
from farvox.report.texts import DASH
from farvox.runs.run import CaseResult, Run
from farvox.runs.schema import FoldSummary, LabelInfo

DENSE_FROM = 12
"""Labels beyond which the table by label takes one line each."""


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


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """A legend of (name, colour)."""
    items = "".join(f"<li>{swatch(colour)}{html.escape(name)}</li>" for name, colour in entries)
    return f'<ul class="legend">{items}</ul>'


def swatch(colour: str) -> str:
    """A small square of a colour."""
    return f'<i style="background:{colour}"></i>'


def label_table(run: Run, colours: Mapping[int, str]) -> str:
    """Mean of every metric per label over cases, its 95 % interval and the spread; last row: mean of the labels.

    With many labels a row is one line and the spread shows when pointed at.
    """
    dense = len(run.labels) > DENSE_FROM
    estimates = run.metrics.summary
    rows = [
        [swatch(colours[label.value]) + html.escape(label.name), *_row(estimates.labels.get(label.value), dense)]
        for label in run.labels
    ]
    if len(rows) > 1:
        rows.append(["<b>mean of labels</b>", *_row(estimates.foreground, dense)])
    return table(["label", *(info.title for info in METRIC_INFOS), "cases"], rows, "dense" if dense else "")


def case_table(cases: Sequence[CaseResult], labels: Sequence[LabelInfo]) -> str:
    """A row a case, worst mean Dice first: means over its labels, then the Dice of each label."""
    several = len(labels) > 1
    infos = METRIC_INFOS[:5]
    head = ["case", "fold", *(f"{'mean ' if several else ''}{info.title}" for info in infos)]
    if several:
        head += [f"{html.escape(label.name)}, Dice" for label in labels]
    rows = []
    for case in sorted(cases, key=lambda c: (c.value("dice") is None, c.value("dice") or 0.0, c.id)):
        row = [html.escape(case.id), html.escape(case.fold.name)]
        row += [number(case.value(info.key), info.decimals) for info in infos]
        if several:
            row += [number(case.value("dice", label.value), 3) for label in labels]
        rows.append(row)
    return table(head, rows, "steep" if len(head) > 14 else "")


def fold_summaries(run: Run) -> dict[str, FoldSummary]:
    """Name → results of each fold: of the summary, else of the fold's log."""
    out = dict(run.summary.folds)
    for fold in run.folds:
        logged = fold.start.model_dump() | (fold.end.model_dump() if fold.end else {})
        recorded = out.get(fold.name, FoldSummary()).model_dump(exclude_none=True)
        out[fold.name] = FoldSummary.model_validate(logged | recorded)
    return out


def fold_table(run: Run) -> str:
    """A row a fold: cases, Dice, parameters, time, peak memory, and why training ended."""
    head = ["fold", "cases", "Dice", "parameters", "training time", "peak memory", "ended by"]
    rows = []
    for name, fold in fold_summaries(run).items():
        row = [html.escape(name), grouped(fold.cases), number(fold.dice, 3)]
        row += [grouped(fold.parameters), duration(fold.seconds), memory(fold.peak_memory_mb)]
        rows.append([*row, html.escape(fold.stop_reason or "not ended")])
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


def _row(estimates: QualityEstimates | None, dense: bool) -> list[str]:
    estimates = estimates or MetricEstimates()
    cells = [_estimate_cell(estimates.get(info.key), info.decimals, dense) for info in METRIC_INFOS]
    return [*cells, str(estimates.dice.cases)]


def _estimate_cell(estimate: Estimate, decimals: int | None, dense: bool) -> str:
    values = (estimate.mean, estimate.ci_low, estimate.ci_high, estimate.sd)
    mean, low, high, sd = (number(value, decimals) for value in values)
    tail = "" if dense else f"<br>± {sd}"
    interval = f' <small title="± {sd}">{low}{DASH}{high}{tail}</small>'
    return mean if DASH in (mean, low, high, sd) else mean + interval


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return DASH if value is None else str(value)
