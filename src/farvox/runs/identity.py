"""The identity of a fold (cases, labels and settings), so that only folds of the same split and recipe share a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farvox.data import Dataset
from farvox.data.folds import Fold
from farvox.errors import RecipeError, UsageError
from farvox.recipes import Recipe, dump_recipe, parse_recipe, with_settings
from farvox.runs.schema import FoldIdentity

_NAMES = {"recipe": "settings", "training_cases": "split", "validation_cases": "split"}


def fold_identity(dataset: Dataset, fold: Fold, recipe: Recipe) -> FoldIdentity:
    """The cases, labels and settings of a fold, without the training duration: `split.json`."""
    duration = {f"train.{key}": getattr(Recipe().train, key) for key in ("budget", "epochs", "checkpoint_seconds")}
    return FoldIdentity(
        fold=fold.name,
        training_cases=tuple(fold.training),
        validation_cases=tuple(fold.validation),
        channels=tuple(dataset.channels),
        labels=dict(zip(dataset.labels.values, dataset.labels.names, strict=True)),
        landmark_radius_mm=dataset.landmark_radius_mm,
        recipe=tuple(dump_recipe(with_settings(recipe, duration)).splitlines()),
    )


def read_identity(path: Path) -> FoldIdentity:
    """Read a `split.json`; settings of earlier releases get their current names.

    Raises:
        FarvoxError: The file is not JSON or has unexpected content.
    """
    identity = FoldIdentity.read(path)
    try:
        recipe = parse_recipe("\n".join(identity.recipe), str(path))
    except RecipeError:
        return identity
    return identity.model_copy(update={"recipe": tuple(dump_recipe(recipe).splitlines())})


def require_same_run(run: Path, dataset: Dataset, folds: Sequence[Fold], recipe: Recipe) -> None:
    """Check that the folds in a run folder have the same split, labels and settings as those planned.

    Args:
        run: The run's folder, which may not exist yet.
        dataset: The cases.
        folds: All folds of the split, not only those to be trained.
        recipe: May contain `auto`; its duration is not compared.

    Raises:
        UsageError: A fold in the folder differs.
    """
    planned = {fold.name: fold_identity(dataset, fold, recipe) for fold in folds}
    for path in sorted(run.glob("fold-*/split.json")):
        existing = read_identity(path)
        expected = planned.get(existing.fold)
        if expected == existing:
            continue
        differs = "split"
        if expected is not None:
            key = next(key for key in FoldIdentity.model_fields if getattr(existing, key) != getattr(expected, key))
            differs = _NAMES.get(key, key.replace("_", " "))
            changed = [line for line in expected.recipe if line not in existing.recipe] if key == "recipe" else []
            differs += f"; now: {changed[0]}" if changed else ""
        raise UsageError(
            f"{path.parent} was started with other {differs}",
            allowed="folds of one split, one label table and one recipe; the budget or the epochs may change",
            hint="use the first settings, start again with --overwrite (overwrite=True), or choose another folder",
        )
