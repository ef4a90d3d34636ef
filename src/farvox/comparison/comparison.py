"""`comparison.json`: a row a recipe with its quality and cost, and the paired differences from the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import prod
from statistics import mean, median
from typing import Any

import farvox
from farvox.comparison.collect import RecipeResult
from farvox.comparison.paired import holm, minimum_p_value, paired_difference
from farvox.errors import FarvoxError, UsageError
from farvox.evaluation import summarise
from farvox.labels import LabelTable

_SHARED_KEYS = ("rule", "tolerance_mm")


def make_comparison(
    compared: Sequence[RecipeResult], notes: Sequence[str] = (), *, strict: bool = False
) -> dict[str, Any]:
    """Compare recipes over the cases that all of them have.

    Seeds are averaged case by case before anything else, so that a case counts once however often it was predicted.

    Args:
        compared: As from `collect`; each is compared with the first.
        notes: Lines for the document's "notes".
        strict: Refuse recipes or seeds that lack a case of the others, instead of leaving the case out with a note.

    Returns:
        The content of `comparison.json`.

    Raises:
        UsageError: Nothing to compare, no case in common, or, when strict, different cases.
    """
    if not compared:
        raise UsageError("no finished fold with validated cases", hint="train at least one fold first")
    notes = [*notes, *_different_cases(compared, strict), *_different_conditions(compared)]
    common = [case for case in compared[0].cases if all(case in recipe.cases for recipe in compared)]
    if not common:
        names = ", ".join(recipe.name for recipe in compared)
        raise UsageError(f"no case that all of {names} have predicted", hint="train the same folds of each")
    first = compared[0].folds[0].metrics
    labels = LabelTable.from_mapping({int(label["value"]): label["name"] for label in first["labels"]})
    rows = [_row(recipe, common, labels, notes) for recipe in compared]
    _add_differences(rows)
    pairs = [row["difference"]["pairs"] for row in rows[1:]]
    if pairs and minimum_p_value(min(pairs)) > 0.05:
        notes.append(
            f"{min(pairs)} pairs are too few for the test: p cannot fall below {minimum_p_value(min(pairs)):.3g}, "
            "however large the difference"
        )
    manifest = compared[0].folds[0].manifest
    return {
        "format": "farvox-comparison/1",
        "version": farvox.__version__,
        "dataset": manifest.get("dataset") or compared[0].folds[0].last("start").get("dataset") or "",
        "labels": first["labels"],
        **{key: first[key] for key in _SHARED_KEYS},
        "cases": common,
        "recipes": rows,
        "notes": list(dict.fromkeys(notes)),
    }


def comparison_csv(document: dict[str, Any]) -> str:
    """One row a recipe: what the papers' tables show; undefined figures are empty."""
    rows = [_csv_row(row, document["labels"]) for row in document["recipes"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(row: dict[str, Any], labels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    summary, difference = row["summary"], row["difference"] or {}
    out = {"recipe": row["name"], **{key: row[key] for key in ("network", "parameters", "multiply_adds_per_voxel")}}
    out |= {"seeds": len(row["seeds"]), "cases": len(row["cases"])}
    for metric in ("dice", "hd95_mm", "surface_dice"):
        figures = summary["foreground"][metric]
        out |= {metric: figures["mean"], f"{metric}_low": figures["low"], f"{metric}_high": figures["high"]}
    for metric in ("dice", "hd95_mm"):
        for label in labels:
            out[f"{metric} {label['name']}"] = summary["labels"][str(label["value"])][metric]["mean"]
    out |= {key: row[key] for key in ("training_minutes", "peak_memory_mb", "prediction_seconds")}
    out |= {"pairs": difference.get("pairs"), "difference": difference.get("mean")}
    return out | {key: difference.get(key) for key in ("p", "p_holm")}


def _row(recipe: RecipeResult, common: Sequence[str], labels: LabelTable, notes: list[str]) -> dict[str, Any]:
    cases = [recipe.cases[case] for case in common]
    folds = recipe.folds
    trained = [len(fold.split["training"]) for fold in folds if "training" in fold.split]
    predicted = [e["seconds"] for f in folds for e in f.metrics["cases"] if e.get("seconds") is not None]
    products, size = _multiply_adds(recipe, notes)
    return {
        "name": recipe.name,
        "network": (folds[0].manifest.get("model") or {}).get("name") or folds[0].last("start").get("model"),
        "folders": sorted({str(fold.folder.parent) for fold in folds}),
        "seeds": [seed for seed in recipe.runs if seed is not None],
        "folds": {
            fold.folder.parent.name + "/" + fold.folder.name: {
                key: fold.done.get(key) for key in ("seconds", "peak_memory_mb", "reason")
            }
            | {"dice": fold.metrics["summary"]["foreground"]["dice"]["mean"]}
            for fold in folds
        },
        "length": recipe.length,
        "training_cases": [min(trained), max(trained)] if trained else None,
        "parameters": max((f.done["parameters"] for f in folds if f.done.get("parameters")), default=None),
        "multiply_adds_per_voxel": products,
        "reference_size": size,
        "training_minutes": mean(fold.done["seconds"] for fold in folds) / 60,
        "peak_memory_mb": max(fold.done["peak_memory_mb"] for fold in folds),
        "prediction_seconds": median(predicted) if predicted else None,
        "cases": cases,
        "summary": summarise(cases, labels),
        "difference": None,
    }


def _add_differences(rows: Sequence[dict[str, Any]]) -> None:
    """Paired differences of the mean Dice from the first row, corrected for their number."""
    dice = [{case["case"]: case["mean"]["dice"] for case in row["cases"]} for row in rows]
    found = [paired_difference(dice[0], other) for other in dice[1:]]
    corrected = holm([difference["p"] for difference in found])
    for row, difference, p in zip(rows[1:], found, corrected, strict=True):
        row["difference"] = difference | {"p_holm": p}


def _multiply_adds(recipe: RecipeResult, notes: list[str]) -> tuple[float | None, tuple[int, ...] | None]:
    """Per voxel of the network's own grid, on an image of the size it was trained on, as `farvox profile` counts."""
    manifest = recipe.folds[0].manifest
    if not manifest.get("model"):
        notes.append(f"{recipe.name}: no bundle, so its multiply-adds are not counted")
        return None, None
    from farvox.models import create_model, model_info
    from farvox.profiling.cost import multiply_adds

    model = manifest["model"]
    try:
        shape = manifest.get("window") or (manifest.get("preprocessing") or {}).get("shape")
        i, j, k = shape or model_info(model["name"]).reference_size
        count = multiply_adds(
            lambda: create_model(model["name"], model["in_channels"], model["classes"], **model["options"]),
            model["in_channels"],
            (i, j, k),
        )
    except (FarvoxError, RuntimeError) as error:
        notes.append(f"{recipe.name}: its multiply-adds could not be counted ({error})")
        return None, None
    return round(count / prod((i, j, k)), 2), (i, j, k)


def _different_cases(compared: Sequence[RecipeResult], strict: bool) -> list[str]:
    """Notes on cases that not every recipe and seed has; an error when strict."""
    everything = set().union(*(recipe.cases for recipe in compared))
    notes = []
    for recipe in compared:
        for seed, folds in recipe.runs.items():
            own = {entry["case"] for fold in folds.values() for entry in fold.metrics["cases"]}
            if missing := sorted(everything - own):
                title = recipe.name if seed is None else f"{recipe.name}, seed {seed}"
                found = f"{title} has {len(own)} of {len(everything)} cases; missing: {_abbreviate(missing)}"
                if strict:
                    raise UsageError(
                        found,
                        allowed="runs that validated the same cases",
                        hint="finish their folds, or compare runs with the same folds",
                    )
                notes.append(found)
    common = [case for case in everything if all(case in recipe.cases for recipe in compared)]
    if notes and common and len(common) < len(everything):
        notes.append(f"all figures of quality are over the {len(common)} cases that every recipe has")
    return notes


def _different_conditions(compared: Sequence[RecipeResult]) -> list[str]:
    """What the recipes did not have in common, so that no figure is read for what it is not."""
    notes = []
    for recipe in compared:
        if len(recipe.length) > 1:
            notes.append(f"{recipe.name}: its folds were trained for different lengths ({', '.join(recipe.length)})")
    if len({tuple(recipe.length) for recipe in compared}) > 1:
        notes.append("trained for different lengths: " + "; ".join(f"{r.name} {', '.join(r.length)}" for r in compared))
    devices = {str(fold.last("start").get("device", "?")) for recipe in compared for fold in recipe.folds}
    if len(devices) > 1:
        notes.append(f"trained on different devices ({', '.join(sorted(devices))}): times and memory do not compare")
    tolerances = sorted({fold.metrics["tolerance_mm"] for recipe in compared for fold in recipe.folds})
    if len(tolerances) > 1:
        shown = ", ".join(f"{mm:g}" for mm in tolerances)
        notes.append(f"surface Dice was taken at different tolerances ({shown} mm) and does not compare")
    for recipe in compared[1:]:
        differing = [c for c, cases in _training(recipe).items() if _training(compared[0]).get(c, cases) != cases]
        if differing:
            notes.append(
                f"{recipe.name} and {compared[0].name} were trained on different cases "
                f"(for the predictions of {_abbreviate(sorted(differing))})"
            )
    return notes


def _training(recipe: RecipeResult) -> dict[str, set[tuple[str, ...]]]:
    """The training cases behind each case's predictions."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for fold in recipe.folds:
        for entry in fold.metrics["cases"]:
            found.setdefault(entry["case"], set()).add(tuple(fold.split.get("training", ())))
    return found


def _abbreviate(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
