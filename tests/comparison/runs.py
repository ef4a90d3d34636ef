"""Run folders as training writes them, without scans and with chosen metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farvox.evaluation import ABSENT_RULE, CaseMetrics, summarise
from farvox.evaluation.schema import label_infos
from farvox.labels import LabelTable
from farvox.recipes import Recipe, dump_recipe, with_settings

LABELS = LabelTable((0, 1, 5), ("background", "liver", "left kidney"))


def write_run(
    folder: Path,
    folds: Mapping[str, Mapping[str, tuple[float | None, float | None]]],
    *,
    model: str = "unet3d",
    options: Mapping[str, Any] | None = None,
    parameters: int = 1000,
    minutes: float = 2.0,
    memory: float = 500.0,
    settings: Mapping[str, Any] | None = None,
    seconds: float | None = 1.5,
    reference_ml: float = 100.0,
    labels: LabelTable = LABELS,
    unfinished: tuple[str, ...] = (),
) -> Path:
    """Write a run.

    Args:
        folder: Of the run.
        folds: Fold name → case id → Dice of the two labels.
        model: Network in the manifest; with `options` its options.
        options: Of the network.
        parameters: Written into `result.json`.
        minutes: Training time of each fold.
        memory: Peak memory of each fold, MiB.
        settings: Of the recipe, "section.key" → value.
        seconds: Time of each prediction; None writes none.
        reference_ml: Volume of each reference structure.
        labels: Label table with two structures.
        unfinished: Folds that have no `result.json`.
    """
    recipe = with_settings(Recipe(), {"model.name": model, "model.options": dict(options or {}), **(settings or {})})
    everything = sorted(case for cases in folds.values() for case in cases)
    for name, cases in folds.items():
        entries = [_entry(case, dice, labels, reference_ml, seconds) for case, dice in cases.items()]
        metrics = {
            "format": "farvox-metrics/2",
            "absent_rule": ABSENT_RULE,
            "tolerance_mm": 1.5,
            "labels": [{"value": value, "name": label} for _, value, label in labels.foreground],
            "cases": entries,
            "failed": [],
            "notes": [],
            "summary": summarise([CaseMetrics.model_validate(e) for e in entries], label_infos(labels)).model_dump(),
        }
        training = [case for case in everything if case not in cases]
        done = {"stop_reason": "budget", "seconds": 60 * minutes, "peak_memory_mb": memory, "parameters": parameters}
        entry = {"name": model, "in_channels": 1, "classes": labels.classes, "options": dict(options or {})}
        documents: dict[str, Any] = {
            "metrics.json": metrics,
            "split.json": {
                "fold": name,
                "training_cases": training,
                "validation_cases": list(cases),
                "recipe": dump_recipe(recipe).splitlines(),
            },
            "bundle/manifest.json": {"dataset": "Abdomen", "model": entry, "window": [16, 16, 16]},
        }
        if name not in unfinished:
            documents["result.json"] = done
        fold_folder = folder / f"fold-{name}"
        (fold_folder / "bundle").mkdir(parents=True)
        for path, content in documents.items():
            (fold_folder / path).write_text(json.dumps(content), encoding="utf-8")
        (fold_folder / "bundle" / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
        (fold_folder / "log.jsonl").write_text(
            "".join(json.dumps(event) + "\n" for event in _log(minutes, entries, model)), encoding="utf-8"
        )
    return folder


def _entry(
    case: str,
    dice: tuple[float | None, float | None],
    labels: LabelTable,
    reference_ml: float,
    seconds: float | None,
) -> dict[str, Any]:
    labels_metrics = {}
    for (_, value, _), one in zip(labels.foreground, dice, strict=True):
        quality = None if one is None else 1 - (1 - one) / 2
        labels_metrics[str(value)] = {
            "dice": one,
            "hd95_mm": None if one is None else 10 * (1 - one),
            "surface_dice": quality,
            "sensitivity": quality,
            "specificity": quality,
            "reference_ml": 0.0 if one is None else reference_ml,
            "prediction_ml": 0.0 if one is None else reference_ml,
        }
    defined = [row for row in labels_metrics.values() if row["dice"] is not None]
    rated_metrics = ("dice", "hd95_mm", "surface_dice", "sensitivity", "specificity")
    mean = {m: sum(row[m] for row in defined) / len(defined) if defined else None for m in rated_metrics}
    entry = {"case": case, "prediction": None, "reference": None, "scan": None, "labels": labels_metrics, "mean": mean}
    return entry if seconds is None else {**entry, "seconds": seconds}


def _log(minutes: float, entries: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    final = [entry["mean"]["dice"] for entry in entries if entry["mean"]["dice"] is not None]
    top = sum(final) / len(final) if final else 0.0
    events: list[dict[str, Any]] = [{"event": "start", "model": model, "device": "cpu", "dataset": "Abdomen"}]
    for tenth in range(1, 11):
        at = {"epoch": 4 * tenth, "step": 40 * tenth, "seconds": 6 * minutes * tenth}
        events.append({"event": "epoch", **at, "fraction_done": tenth / 10, "loss": 2 / tenth, "learning_rate": 1e-3})
        events.append({"event": "validation", **at, "dice": {}, "mean": top * (1 - 0.7**tenth)})
    return events
