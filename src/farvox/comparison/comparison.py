"""Compare recipes: quality and cost of each, and paired differences from the first."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from statistics import mean, median

import farvox
from farvox.comparison.collect import RecipeResult
from farvox.comparison.paired import holm, minimum_p_value, paired_difference
from farvox.errors import FarvoxError, UsageError
from farvox.evaluation.schema import LabelInfo
from farvox.evaluation.statistics import summarise
from farvox.runs.schema import Comparison, RecipeRow
from farvox.runs.summary import fold_summary


def make_comparison(results: Sequence[RecipeResult], notes: Sequence[str] = (), *, strict: bool = False) -> Comparison:
    """Compare recipes over the cases that all of them have.

    The metrics of each case are averaged over seeds first, so that each case counts once.

    Args:
        results: The recipes, as from `collect_results`; each is compared with the first.
        notes: Remarks to include.
        strict: Raise an error if a recipe or seed lacks a case, instead of leaving the case out with a note.

    Raises:
        UsageError: Nothing to compare, no common case, or different cases with `strict`.
    """
    if not results:
        raise UsageError("no finished fold with validated cases", hint="train at least one fold first")
    notes = [*notes, *_different_cases(results, strict), *_different_conditions(results)]
    common = [case for case in results[0].cases if all(case in recipe.cases for recipe in results)]
    if not common:
        names = ", ".join(recipe.name for recipe in results)
        raise UsageError(f"no case was predicted by all of {names}", hint="train the same folds of each")
    first = results[0].folds[0]
    rows = _with_differences([_row(recipe, common, first.metrics.labels, notes) for recipe in results])
    pairs = [row.difference.pairs for row in rows if row.difference]
    if pairs and minimum_p_value(min(pairs)) > 0.05:
        notes.append(
            f"{min(pairs)} pairs are too few for the test: p cannot fall below {minimum_p_value(min(pairs)):.3g}, "
            "regardless of the difference"
        )
    return Comparison(
        version=farvox.__version__,
        dataset=(first.run.manifest and first.run.manifest.dataset) or first.run.start.dataset or "",
        labels=first.metrics.labels,
        absent_rule=first.metrics.absent_rule,
        tolerance_mm=first.metrics.tolerance_mm,
        cases=tuple(common),
        recipes=tuple(rows),
        notes=tuple(dict.fromkeys(notes)),
    )


def _row(recipe: RecipeResult, common: Sequence[str], labels: Sequence[LabelInfo], notes: list[str]) -> RecipeRow:
    cases = tuple(recipe.cases[case] for case in common)
    folds, results = recipe.folds, [fold.result for fold in recipe.folds]
    trained = [len(fold.training_cases) for fold in folds if fold.training_cases]
    predicted = [case.seconds for fold in folds for case in fold.metrics.cases if case.seconds is not None]
    seconds = [result.seconds for result in results if result.seconds is not None]
    multiply_adds, size = _multiply_adds(recipe, notes)
    manifest = folds[0].run.manifest
    return RecipeRow(
        name=recipe.name,
        network=(manifest and manifest.model) or folds[0].run.start.model,
        folders=tuple(sorted({str(fold.run.folder.parent) for fold in folds})),
        seeds=tuple(seed for seed in recipe.runs if seed is not None),
        folds={f"{fold.run.folder.parent.name}/{fold.run.folder.name}": fold_summary(fold.run) for fold in folds},
        budget=tuple(recipe.budget),
        training_cases=(min(trained), max(trained)) if trained else None,
        parameters=max((result.parameters for result in results if result.parameters), default=None),
        multiply_adds_per_voxel=multiply_adds,
        reference_size=size,
        training_seconds=mean(seconds) if seconds else None,
        peak_memory_mb=max((r.peak_memory_mb for r in results if r.peak_memory_mb is not None), default=None),
        prediction_seconds=median(predicted) if predicted else None,
        cases=cases,
        summary=summarise(cases, labels),
    )


def _with_differences(rows: Sequence[RecipeRow]) -> list[RecipeRow]:
    """The rows with the paired differences of their mean Dice from the first row, corrected for their number."""
    dice = [{case.case: case.mean.dice for case in row.cases} for row in rows]
    differences = [paired_difference(dice[0], other) for other in dice[1:]]
    corrected = holm([difference.p for difference in differences])
    compared = zip(rows[1:], differences, corrected, strict=True)
    return [
        rows[0],
        *(row.model_copy(update={"difference": d.model_copy(update={"p_holm": p})}) for row, d, p in compared),
    ]


def _multiply_adds(recipe: RecipeResult, notes: list[str]) -> tuple[float | None, tuple[int, int, int] | None]:
    """Multiply-adds per voxel at the training size, and that size; counted as by `farvox profile`."""
    manifest = recipe.folds[0].run.manifest
    if not manifest or not manifest.model:
        notes.append(f"{recipe.name}: multiply-adds are not counted because there is no bundle")
        return None, None
    from farvox.models import create_model, model_info
    from farvox.models.registry import imports_code
    from farvox.profiling.cost import multiply_adds

    name, channels, classes, options = manifest.model, manifest.in_channels, manifest.classes, manifest.options
    if imports_code(name):  # the run may be somebody else's
        notes.append(f"{recipe.name}: multiply-adds are not counted because the network '{name}' is not registered")
        return None, None
    try:
        size = manifest.patch_size or manifest.shape or model_info(name).reference_size
        count = multiply_adds(lambda: create_model(name, channels, classes, **options), channels, size)
    except (FarvoxError, RuntimeError) as error:
        notes.append(f"{recipe.name}: multiply-adds could not be counted ({error})")
        return None, None
    return round(count / prod(size), 2), size


def _different_cases(results: Sequence[RecipeResult], strict: bool) -> list[str]:
    """Notes on cases that a recipe or seed lacks; an error if `strict`."""
    everything = set().union(*(recipe.cases for recipe in results))
    notes = []
    for recipe in results:
        for seed, folds in recipe.runs.items():
            validated = {case.case for fold in folds.values() for case in fold.metrics.cases}
            if missing := sorted(everything - validated):
                title = recipe.name if seed is None else f"{recipe.name}, seed {seed}"
                message = f"{title} has {len(validated)} of {len(everything)} cases; missing: {_abbreviate(missing)}"
                if strict:
                    raise UsageError(
                        message,
                        allowed="runs that validated the same cases",
                        hint="finish their folds, or compare runs with the same folds",
                    )
                notes.append(message)
    common = [case for case in everything if all(case in recipe.cases for recipe in results)]
    if notes and common and len(common) < len(everything):
        notes.append(f"all metrics are over the {len(common)} cases that every recipe has")
    return notes


def _different_conditions(results: Sequence[RecipeResult]) -> list[str]:
    """Notes on differences between the recipes that make metrics or costs incomparable."""
    notes = []
    for recipe in results:
        if len(recipe.budget) > 1:
            notes.append(f"{recipe.name}: its folds were trained for different durations ({', '.join(recipe.budget)})")
    if len({tuple(recipe.budget) for recipe in results}) > 1:
        notes.append(
            "trained for different durations: " + "; ".join(f"{r.name} {', '.join(r.budget)}" for r in results)
        )
    devices = {fold.run.start.device or "?" for recipe in results for fold in recipe.folds}
    if len(devices) > 1:
        notes.append(
            f"trained on different devices ({', '.join(sorted(devices))}): times and memory are not comparable"
        )
    tolerances = sorted({fold.metrics.tolerance_mm or 0.0 for recipe in results for fold in recipe.folds})
    if len(tolerances) > 1:
        shown = ", ".join(f"{mm:g}" for mm in tolerances)
        notes.append(f"surface Dice was computed with different tolerances ({shown} mm) and is not comparable")
    for recipe in results[1:]:
        differing = [c for c, cases in _training(recipe).items() if _training(results[0]).get(c, cases) != cases]
        if differing:
            notes.append(
                f"{recipe.name} and {results[0].name} were trained on different cases "
                f"(for the predictions of {_abbreviate(sorted(differing))})"
            )
    return notes


def _training(recipe: RecipeResult) -> dict[str, set[tuple[str, ...]]]:
    """Case id → the training cases of the networks that predicted it."""
    by_case: dict[str, set[tuple[str, ...]]] = {}
    for fold in recipe.folds:
        for case in fold.metrics.cases:
            by_case.setdefault(case.case, set()).add(fold.training_cases)
    return by_case


def _abbreviate(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
