"""What a fold is trained on and how, kept beside it, so that only folds that belong together share a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from farvox._atomic import read_json
from farvox.data import Dataset
from farvox.data.folds import Fold
from farvox.errors import UsageError
from farvox.recipes import Recipe, dump_recipe, with_settings


def fold_identity(dataset: Dataset, fold: Fold, recipe: Recipe) -> dict[str, Any]:
    """What a fold is trained on and how, apart from for how long: `split.json`."""
    length = {f"train.{key}": getattr(Recipe().train, key) for key in ("budget", "epochs", "checkpoint_seconds")}
    return {
        "fold": fold.name,
        "training": list(fold.training),
        "validation": list(fold.validation),
        "channels": list(dataset.channels),
        "labels": {str(v): name for v, name in zip(dataset.labels.values, dataset.labels.names, strict=True)},
        **({} if dataset.landmark_radius_mm is None else {"radius": dataset.landmark_radius_mm}),
        "recipe": dump_recipe(with_settings(recipe, length)).splitlines(),
    }


def require_same_run(run: Path, dataset: Dataset, folds: Sequence[Fold], recipe: Recipe) -> None:
    """Refuse to put folds into a run whose other folds were split, labelled or set up differently.

    Args:
        run: The run's folder, which may not exist yet.
        dataset: The cases.
        folds: All folds of the split, not only those to be trained.
        recipe: May hold `auto`; its length does not count.

    Raises:
        UsageError: What is in the folder does not belong to this run.
    """
    planned = {fold.name: fold_identity(dataset, fold, recipe) for fold in folds}
    for path in sorted(run.glob("fold-*/split.json")):
        there = read_json(path)
        wanted = planned.get(there["fold"])
        if wanted == there:
            continue
        differs = "the split"
        if wanted is not None:
            key = next(key for key in wanted if there.get(key) != wanted[key])
            differs = {"recipe": "settings", "training": "the split", "validation": "the split"}.get(key, key)
            if key == "recipe":
                changed = [line for line in wanted[key] if line not in there.get(key, [])]
                differs += f"; now: {changed[0]}" if changed else ""
        raise UsageError(
            f"{path.parent} was begun with other {differs.removeprefix('the ')}",
            allowed="folds of one split, one label table and one recipe in a run; the budget or the epochs may change",
            hint="repeat the first command, begin all anew with --overwrite, or choose another --out",
        )
