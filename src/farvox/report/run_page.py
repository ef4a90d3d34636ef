"""The report of a run as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping

from farvox.errors import FarvoxError
from farvox.evaluation.schema import Estimate, QualityEstimates
from farvox.figures.boxes import box_plot
from farvox.figures.overlays import most_foreground_slices
from farvox.figures.style import label_colours, png, svg
from farvox.report.formats import format_count, format_duration, format_memory, format_number, render
from farvox.report.offsets import offsets_section
from farvox.report.texts import DASH
from farvox.runs.run import CaseResult, FoldRun, Run
from farvox.runs.schema import FoldSummary, StartEvent


def run_page(run: Run) -> str:
    """The report as HTML, without scripts or external resources."""
    colours = label_colours([label.value for label in run.labels])
    names = {label.value: label.name for label in run.labels}
    folds = _fold_summaries(run)
    start = run.folds[0].start if run.folds else StartEvent()
    curves = run.plot_learning_curve()
    dice = {value: [d for case in run.cases if (d := case.value("dice", value)) is not None] for value in names}
    return render(
        "run.html.j2",
        run=run,
        name=run.summary.dataset.name or run.path.resolve().name,
        subtitle=_subtitle(run, start),
        headline=_headline_numbers(run, folds),
        metrics=run.metrics,
        statistics=run.statistics,
        colours=colours,
        legend=[(names[value], colour) for value, colour in colours.items()],
        boxes=svg(box_plot(dice, names, colours), "Dice of each case by label") if run.cases else None,
        pictures=[_picture(title, case, colours) for title, case in run.worst_median_best().items()],
        cases=sorted(run.cases, key=lambda c: (c.value("dice") is None, c.value("dice") or 0.0, c.id)),
        curves=svg(curves, "Training loss and validation Dice over minutes") if curves else None,
        offsets=offsets_section(run.folds),
        folds=folds,
        data=_data(run, start),
        network={
            "recipe": run.summary.recipe,
            **start.model_dump(include={"model", "parameters", "device", "devices", "precision", "threads"}),
        },
        settings=_settings(run),
        versions={
            "farvox": run.summary.version,
            **next((fold.manifest.versions for fold in run.folds if fold.manifest and fold.manifest.versions), {}),
        },
    )


def _subtitle(run: Run, start: StartEvent) -> str:
    parts = {
        "recipe": run.summary.recipe,
        "network": start.model,
        "folds": len(run.folds),
        "farvox": run.summary.version,
    }
    return " · ".join(f"{key} {value}" for key, value in parts.items() if value)


def _headline_numbers(run: Run, folds: Mapping[str, FoldSummary]) -> list[tuple[str, str, list[str]]]:
    """(title, value, lines below) of the tiles at the top."""
    mean = run.statistics.foreground if run.statistics else QualityEstimates()
    seconds = [fold.seconds for fold in folds.values() if fold.seconds is not None]
    peak = max((fold.peak_memory_mb for fold in folds.values() if fold.peak_memory_mb is not None), default=None)
    parameters = max((fold.parameters for fold in folds.values() if fold.parameters is not None), default=None)
    tolerance = "" if run.tolerance_mm is None else f" at {run.tolerance_mm:.3g} mm"
    return [
        ("foreground Dice", *_estimate(mean.dice, 3)),
        ("HD95", *_estimate(mean.hd95_mm, 2, " mm")),
        (f"surface Dice{tolerance}", *_estimate(mean.surface_dice, 3)),
        ("validated cases", str(len(run.cases) or DASH), [f"of {run.summary.dataset.cases or DASH}"]),
        ("training time", format_duration(max(seconds, default=None)), ["longest fold"] if len(seconds) > 1 else []),
        ("parameters", format_count(parameters), ["peak memory", format_memory(peak)]),
    ]


def _estimate(estimate: Estimate, decimals: int, unit: str = "") -> tuple[str, list[str]]:
    """The mean, and its interval as lines of text."""
    mean, low, high = (format_number(v, decimals) for v in (estimate.mean, estimate.ci_low, estimate.ci_high))
    if mean == DASH:
        return DASH, ["undefined"]
    interval = ["one case, no interval"] if DASH in (low, high) else ["95 % interval", f"{low}{DASH}{high}"]
    return f"{mean}{unit}", interval


def _picture(title: str, case: CaseResult, colours: Mapping[int, str]) -> dict[str, object]:
    """Title, figure and caption of a case; without a figure, the reason."""
    title = f"{title.capitalize()} case"
    try:
        scan = case.load()
    except (FarvoxError, OSError) as error:
        return {"title": title, "case": case, "error": str(error)}
    voxel = ", ".join(map(str, most_foreground_slices(scan.reference, scan.prediction)))
    size = " × ".join(f"{mm:.3g}" for mm in scan.spacing)
    return {
        "title": title,
        "case": case,
        "error": None,
        "figure": png(scan.figure(colours), f"{title} {case.id}, reference and prediction in three planes"),
        "caption": f"Planes through voxel ({voxel}), counted towards right, anterior, superior; voxels of {size} mm.",
    }


def _fold_summaries(run: Run) -> dict[str, FoldSummary]:
    """Fold name → its results in the summary; if there are none, those in its log."""
    out = dict(run.summary.folds)
    for fold in run.folds:
        logged = fold.start.model_dump() | (fold.end.model_dump() if fold.end else {})
        recorded = out.get(fold.name, FoldSummary()).model_dump(exclude_none=True)
        out[fold.name] = FoldSummary.model_validate(logged | recorded)
    return out


def _data(run: Run, start: StartEvent) -> dict[str, object]:
    data: dict[str, object] = {"name": run.summary.dataset.name or None, "cases": run.summary.dataset.cases}
    data["labels"] = [label.name for label in run.labels] or None
    for title, cases in (("training", start.training_cases), ("validation", start.validation_cases)):
        if cases is not None:
            data[f"{title}, fold {run.folds[0].name}"] = f"{len(cases)} cases"
    return data


def _settings(run: Run) -> dict[str, str]:
    """Title → text of the resolved recipe and the manifest of the first bundle."""
    fold = next((fold for fold in run.folds if fold.recipe or fold.manifest), None)
    if fold is None:
        return {}
    settings = {"Resolved recipe": fold.recipe, "Manifest of the bundle": _manifest_text(fold)}
    return {f"{title}, fold {fold.name}": text for title, text in settings.items() if text}


def _manifest_text(fold: FoldRun) -> str:
    if not fold.manifest:
        return ""
    content = json.loads((fold.bundle / "manifest.json").read_text(encoding="utf-8"))
    return json.dumps(content, indent=2, ensure_ascii=False)
