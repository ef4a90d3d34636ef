"""A small run folder with NIfTI files, as training writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE, SPACING = (80, 64, 9), (1.25, 1.25, 7.7)
RULE = "A structure absent from reference and prediction is left out; absent from one of them it counts as Dice 0."
METRICS = ("dice", "hd95_mm", "surface_dice", "sensitivity", "specificity", "reference_ml", "prediction_ml")


def write_run(
    run: Path,
    names: Mapping[int, str],
    folds: int = 2,
    extra_cases: int = 0,
    spacing: tuple[float, float, float] = SPACING,
    code: str = "LAS",
) -> Path:
    """Write a run of `folds` folds with three cases that have files, and `extra_cases` without files."""
    run.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = [f"case_{index:03d}" for index in range(3 + extra_cases)]
    entries: list[dict[str, Any]] = []
    for index, case in enumerate(ids):
        paths: dict[str, Any] = {"prediction": None, "reference": None, "scan": None}
        if index < 3:
            folder = run / f"fold-{index % folds}" / "predictions"
            paths = _write_case(
                run.parent / "data", folder, case, names, wrong=3 * (2 - index), spacing=spacing, code=code
            )
        labels = {str(value): _numbers(rng, 0.72 + 0.1 * min(index, 2)) for value in names}
        mean = {metric: float(np.mean([row[metric] for row in labels.values()])) for metric in METRICS[:5]}
        entries.append({"case": case, **paths, "labels": labels, "mean": mean})
    for fold in range(folds):
        _write_fold(run / f"fold-{fold}", fold, [e for i, e in enumerate(entries) if i % folds == fold], names, rng)
    folds_summary = {
        str(fold): {
            "seconds": 480.3 + fold,
            "peak_memory_mb": 1430.0,
            "parameters": 1459921,
            "stop_reason": "budget",
            "cases": len(entries[fold::folds]),
            "dice": float(np.mean([e["mean"]["dice"] for e in entries[fold::folds]])),
        }
        for fold in range(folds)
    }
    summary = {
        "format": "farvox-run/2",
        "dataset": {"name": "Abdomen", "cases": len(ids)},
        "recipe": "default",
        "version": "0.1.0",
        "folds": folds_summary,
        **_common(names),
        "summary": statistics(entries),
    }
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


def statistics(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `summary` part of a metrics document, with a normal interval instead of the bootstrap."""

    def block(values: list[float | None]) -> dict[str, Any]:
        defined = np.array([value for value in values if value is not None])
        if not defined.size:
            return {"mean": None, "sd": None, "ci_low": None, "ci_high": None, "cases": 0}
        mean, sd = float(defined.mean()), float(defined.std())
        half_width = 1.96 * sd / np.sqrt(defined.size)
        return {
            "mean": mean,
            "sd": sd,
            "ci_low": mean - half_width,
            "ci_high": mean + half_width,
            "cases": int(defined.size),
        }

    values = list(entries[0]["labels"])
    return {
        "labels": {v: {m: block([e["labels"][v][m] for e in entries]) for m in METRICS} for v in values},
        "foreground": {m: block([e["mean"][m] for e in entries]) for m in METRICS[:5]},
    }


def phantom(names: Mapping[int, str], shape: tuple[int, int, int], spacing: Sequence[float]) -> np.ndarray:
    """Label values of ellipsoids on a ring, each a few slices thick."""
    at = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    )
    field_of_view = np.array(shape) * spacing
    out = np.zeros(shape, np.uint8)
    count = len(names)
    for index, value in enumerate(names):
        angle = 2 * np.pi * index / count
        centre = np.array([np.cos(angle) * 0.22 * field_of_view[0], np.sin(angle) * 0.22 * field_of_view[1], 0]) * (
            count > 1
        )
        size = np.array([0.15, 0.15, 0.3]) * field_of_view * (1 if count <= 4 else 4 / count**0.75)
        out[(((at - centre[:, None, None, None]) / size[:, None, None, None]) ** 2).sum(0) < 1] = value
    return out


def _write_case(
    data: Path,
    predictions: Path,
    case: str,
    names: Mapping[int, str],
    wrong: int,
    spacing: tuple[float, float, float],
    code: str,
) -> dict[str, Any]:
    """Scan, reference, and a prediction shifted by `wrong` voxels, stored in the axis order `code`."""
    reference = phantom(names, SHAPE, spacing)
    prediction = np.roll(reference, wrong, axis=0)
    scan = (300 + np.indices(SHAPE)[1] + 60 * (reference > 0) + 2 * reference).astype(np.int16)
    paths = {"scan": data / "images", "reference": data / "labels", "prediction": predictions}
    for (role, folder), array in zip(paths.items(), (scan, reference, prediction), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        ras = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
        )
        nib.save(ras.as_reoriented(turn), folder / f"{case}.nii.gz")
        paths[role] = folder / f"{case}.nii.gz"
    return {role: str(path) for role, path in paths.items()}


def _numbers(rng: np.random.Generator, centre: float) -> dict[str, float | None]:
    dice = float(np.clip(centre + rng.normal(0, 0.05), 0, 1))
    return {
        "dice": dice,
        "hd95_mm": float(30 * (1 - dice)),
        "surface_dice": dice * 0.95,
        "sensitivity": dice,
        "specificity": 0.999,
        "reference_ml": float(rng.uniform(20, 200)),
        "prediction_ml": float(rng.uniform(20, 200)),
    }


def _write_fold(
    folder: Path, fold: int, entries: list[dict[str, Any]], names: Mapping[int, str], rng: np.random.Generator
) -> None:
    bundle = folder / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "recipe.toml").write_text(
        'name = "default"\n\n[model]\nname = "unet3d"\nwidth = 16\n\n[train]\nbudget = "8m"\n', encoding="utf-8"
    )
    (bundle / "manifest.json").write_text(
        json.dumps(
            {
                "format": "farvox-bundle/1",
                "preprocessing": {"spacing": [1.25, 1.25, 7.7]},
                "versions": {"torch": "2.7.1"},
            }
        ),
        encoding="utf-8",
    )
    metrics = {"format": "farvox-metrics/2", **_common(names), "cases": entries, "summary": statistics(entries)}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    start = {"model": "unet3d", "parameters": 1459921, "device": "cpu", "precision": "bf16-mixed", "threads": 2}
    ids = {"training_cases": ["a", "b"], "validation_cases": [entry["case"] for entry in entries]}
    events: list[dict[str, Any]] = [{"event": "start", "fold": fold, **start, **ids}]
    for epoch in range(1, 25):
        at = {"epoch": epoch, "step": 40 * epoch, "seconds": 20.0 * epoch}
        loss = 0.25 + 0.9 * np.exp(-epoch / 6) + rng.normal(0, 0.02)
        events.append({"event": "epoch", **at, "fraction_done": epoch / 24, "loss": loss, "learning_rate": 7e-4})
        if epoch % 3 == 0:
            events.append({"event": "validation", **at, "dice": {}, "mean": 0.88 - 0.6 * float(np.exp(-epoch / 6))})
    end = {"epoch": 24, "step": 960, "seconds": 480.3 + fold, "peak_memory_mb": 1430.0}
    events.append({"event": "end", "stop_reason": "budget", **end})
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def _common(names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "absent_rule": RULE,
        "tolerance_mm": 1.0,
        "labels": [{"value": value, "name": name} for value, name in names.items()],
    }
