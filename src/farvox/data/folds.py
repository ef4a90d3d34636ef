"""Folds of a cross-validation: fixed by the seed, groups kept together, every class in every training part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from farvox.data.dataset import Dataset
from farvox.errors import DataError, UsageError


@dataclass(frozen=True)
class Fold:
    """Case ids to train on and to validate on; `name` is the fold's number, or 'all'."""

    name: str
    training: tuple[str, ...]
    validation: tuple[str, ...]


def plan_folds(
    dataset: Dataset,
    labels: Mapping[str, set[int]],
    seed: int,
    folds: int,
    fold: int | None = None,
    *,
    leave_one_out: bool = False,
    all_cases: bool = False,
    group: str | None = None,
    train_cases: int | None = None,
    subset_seed: int | None = None,
) -> tuple[list[Fold], list[Fold]]:
    """All folds of the split and the fold of all cases, and those of them to train.

    Args:
        dataset: The cases.
        labels: Label values present in each case.
        seed: Seed of the split.
        folds: Number of folds.
        fold: Train this fold only.
        leave_one_out: As many folds as cases.
        all_cases: Train on all cases, without validation.
        group: As in `make_folds`.
        train_cases: Training cases to keep in each fold.
        subset_seed: Seed of the choice of these; `seed` by default.

    Raises:
        UsageError: Options that exclude each other, or a fold that does not exist.
        DataError: As `make_folds` and `check_coverage`.
    """
    ids = [case.id for case in dataset.cases]
    if all_cases and (fold is not None or leave_one_out):
        raise UsageError("all cases together with a single fold or leave-one-out", allowed="one of them")
    final = all_cases_fold(ids)
    if all_cases and len(ids) < 2:
        return [final], [final]
    made = make_folds(ids, len(ids) if leave_one_out and len(ids) > 1 else folds, seed, group)
    if train_cases is not None:
        kept = seed if subset_seed is None else subset_seed
        made = [subsample_training_cases(one, train_cases, kept) for one in made]
        final = subsample_training_cases(final, train_cases, kept)
    if fold is not None and not 0 <= fold < len(made):
        raise UsageError(f"fold {fold}", allowed=f"0 to {len(made) - 1}")
    selected = [final] if all_cases else made if fold is None else [made[fold]]
    names = {value: name for _, value, name in dataset.labels.foreground}
    for one in selected:
        check_coverage(one, labels, names)
    return [*made, final], selected


def make_folds(cases: Sequence[str], folds: int, seed: int = 0, group: str | None = None) -> list[Fold]:
    """Split cases into `folds` parts of nearly equal size; each part validates once.

    Args:
        cases: Case ids, any order; the split depends on the set and the seed alone.
        folds: Number of parts, at least 2; more than there are cases (or groups) becomes leave-one-out.
        seed: Of the shuffle.
        group: Regular expression; cases whose matched text agrees (say, a patient's number) stay together.

    Raises:
        UsageError: Fewer than two folds, or an expression that does not match a case.
        DataError: Fewer than two cases or groups.
    """
    if folds < 2:
        raise UsageError(
            f"{folds} fold(s)", allowed="2 or more", hint="train on every case with all_cases (--all-cases)"
        )
    groups: dict[str, list[str]] = {}
    for case in sorted(cases):
        groups.setdefault(_group_of(case, group), []).append(case)
    if len(groups) < 2:
        raise DataError(
            f"{len(cases)} case(s) in {len(groups)} group(s)",
            allowed="at least two, one to train on and one to validate on",
            hint="add labelled cases, or train without validation with all_cases (--all-cases)",
        )
    names = sorted(groups)
    np.random.default_rng(seed).shuffle(names)
    parts = np.array_split(np.array(names, dtype=object), min(folds, len(names)))
    out = []
    for number, part in enumerate(parts):
        validation = {case for name in part for case in groups[name]}
        out.append(Fold(str(number), tuple(c for c in sorted(cases) if c not in validation), tuple(sorted(validation))))
    return out


def all_cases_fold(cases: Sequence[str]) -> Fold:
    """Every case to train on, none to validate on."""
    return Fold("all", tuple(sorted(cases)), ())


def subsample_training_cases(fold: Fold, count: int, seed: int = 0) -> Fold:
    """The fold with `count` of its training cases, for trials with few scans; validation stays whole.

    Args:
        fold: The fold.
        count: Training cases to keep. With the same seed a smaller count keeps a part of what a larger one does.
        seed: Of the draw.

    Raises:
        UsageError: Fewer than one case, or more than the fold has.
    """
    if not 1 <= count <= len(fold.training):
        raise UsageError(
            f"{count} training cases", allowed=f"1 to {len(fold.training)}, the training cases of fold {fold.name}"
        )
    kept = np.random.default_rng(seed).permutation(len(fold.training))[:count]
    return replace(fold, training=tuple(fold.training[index] for index in sorted(kept)))


def check_coverage(fold: Fold, values: Mapping[str, set[int]], names: Mapping[int, str]) -> None:
    """Refuse a fold whose training part lacks a class altogether.

    Args:
        fold: The fold.
        values: Label values present in each case.
        names: Name of each foreground value.

    Raises:
        DataError: A class occurs in no training case of the fold.
    """
    present = set().union(*(values[case] for case in fold.training))
    missing = [f"{value} ({name})" for value, name in names.items() if value not in present]
    if missing:
        raise DataError(
            f"fold {fold.name}: no training case holds label {', '.join(missing)}",
            allowed="each label in at least one training case of each fold",
            hint="use more folds or cases or another seed (--set train.seed=1), or remove the label from the table",
        )


def _group_of(case: str, expression: str | None) -> str:
    if expression is None:
        return case
    try:
        match = re.search(expression, case)
    except re.error as error:
        raise UsageError(f"group {expression}: {error}", allowed="a regular expression") from None
    if match is None:
        raise UsageError(f"group {expression} does not match case {case}", allowed="an expression all ids match")
    return match[0]
