"""`farvox.train`: from a dataset to networks, masks of the validation scans, metrics and a report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from torch import nn

from farvox._optional import import_optional
from farvox.data import Check, Dataset, check, read_dataset
from farvox.data.folds import Fold, plan_folds
from farvox.devices import reset_peak_memory, resolve_device
from farvox.errors import UsageError
from farvox.losses import Loss
from farvox.models import check_network, create_model
from farvox.preprocessing.cache import CaseCache
from farvox.preprocessing.planning import validate_recipe
from farvox.progress import NullProgress, Progress, resolve_progress
from farvox.recipes import Recipe, load_recipe, with_settings
from farvox.runs.identity import require_same_run
from farvox.runs.lock import is_locked, require_unlocked
from farvox.runs.run import Run
from farvox.runs.summary import is_complete, summarise_run
from farvox.training.fold import destroy_process_group, run_fold, setup_fabric
from farvox.training.loop import Extras
from farvox.types import PathLike


def train(
    dataset: Dataset | PathLike,
    recipe: str | PathLike | Recipe = "default",
    *,
    out: PathLike | None = None,
    folds: int = 5,
    fold: int | None = None,
    leave_one_out: bool = False,
    all_cases: bool = False,
    group: str | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    settings: Mapping[str, object] | Sequence[str] = (),
    train_cases: int | None = None,
    skip_bad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    devices: int = 1,
    model: str | Callable[..., nn.Module] | None = None,
    loss: str | Callable[..., object] | None = None,
    augment: Callable[..., object] | None = None,
    callbacks: Sequence[object] = (),
    progress: Progress | bool | None = None,
) -> Run:
    """Train by cross-validation; predict, evaluate and report the validation scans of each fold.

    Args:
        dataset: From `farvox.read_dataset`, or a folder that it can read.
        recipe: Name of a shipped recipe, a TOML file, or a `Recipe`.
        out: Folder of the run; `runs/<dataset>-<recipe>` by default.
        folds: Number of folds; more than there are cases means leave-one-out.
        fold: Train this fold only, counted from 0; all folds by default.
        leave_one_out: As many folds as cases.
        all_cases: Train one network on all cases, without validation.
        group: Regular expression; cases with the same match, such as a patient id, stay in one fold.
        budget: Training time per fold, such as "45s", "8m" or "2h".
        epochs: Passes over the training cases instead of a time.
        settings: Settings that replace those of the recipe: `{"train.batch": 4}` or `["train.batch=4"]`.
        train_cases: Train each fold on this many of its cases, drawn by the seed.
        skip_bad: Leave out cases that cannot be used; otherwise they are an error.
        resume: Continue an interrupted run; complete folds are kept.
        overwrite: Delete the folds to be trained if they exist.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        devices: Number of GPUs that share each fold.
        model: A network instead of the recipe's: a registered name, "package.module:function", or a function
            `build(in_channels, classes, **options)` at the top of a module.
        loss: A loss instead of the recipe's: a registered name, or a function of logits (B, classes, ...) and target
            (B, ...) that returns a scalar.
        augment: Called with each training patch after the recipe's changes: `(image, classes, rng)` → the same two.
        callbacks: Objects with any of the methods `on_start`, `on_step`, `on_epoch`, `on_validation`, `on_end`, each
            called with the event.
        progress: Receives the progress; see `farvox.Progress`.

    Returns:
        The run. After an interruption `run.interrupted` is set, and `resume=True` continues it.

    Raises:
        FarvoxError: Data, settings, device or folder cannot be used; the message says what to do.
    """
    reporter = resolve_progress(progress)
    resolved = resolve_recipe_settings(recipe, settings, budget, epochs, model, loss)
    resolve_device(device, devices)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    network = create_model(resolved.model.name, len(data.channels), data.labels.classes, **resolved.model.options)
    if model is not None:
        check_network(network, len(data.channels), data.labels.classes)
    folder = Path(out) if out is not None else Path("runs") / f"{data.name.replace(' ', '_')}-{resolved.name}"
    with temporary_cache(folder, data, reporter) as cache:
        checked = usable_cases(data, skip_bad, reporter, cache)
        every, selected = plan_folds(
            checked.dataset,
            checked.labels_by_case,
            resolved.train.seed,
            folds,
            fold,
            leave_one_out=leave_one_out,
            all_cases=all_cases,
            group=group,
            train_cases=train_cases,
        )
        if overwrite:
            for old in [folder / f"fold-{fold}"] if fold is not None else list(folder.glob("fold-*")):
                require_unlocked(old)
                shutil.rmtree(old, ignore_errors=True)
        require_same_run(folder, checked.dataset, every, resolved)
        return train_folds(
            checked.dataset,
            selected,
            resolved,
            folder,
            device,
            devices,
            resume=resume,
            extras=Extras(loss if callable(loss) else None, augment, tuple(callbacks)),
            cache=cache,
            progress=reporter,
        )


@contextmanager
def temporary_cache(folder: Path, dataset: Dataset, progress: Progress) -> Iterator[CaseCache]:
    """A cache in the folder of a run or of a comparison, which is deleted when the block ends.

    While another process trains in the folder the cache is kept, and that process deletes it. If the block failed
    before it wrote anything else, a new folder is deleted, too.
    """
    existed = folder.exists()
    cache = CaseCache(folder / "cache", dataset, progress)
    try:
        yield cache
    finally:
        if not any(is_locked(fold) for fold in (*folder.glob("fold-*"), *folder.glob("*/fold-*"))):
            cache.remove()
        if not existed:
            with suppress(OSError):
                folder.rmdir()


def usable_cases(dataset: Dataset, skip_bad: bool, progress: Progress, cache: CaseCache | None = None) -> Check:
    """The labelled cases that can be used for training, checked.

    Raises:
        DataError: As `Check.usable`.
    """
    checked = check(replace(dataset, unlabelled=()), progress=progress, on_case=cache.store if cache else None)
    for case in checked.problems if skip_bad else ():
        progress.message(f"left out: case {case.id}: {case.error}")
    return checked.usable(skip_bad)


def resolve_recipe_settings(
    recipe: str | PathLike | Recipe,
    settings: Mapping[str, object] | Sequence[str] = (),
    budget: str | None = None,
    epochs: int | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    loss: str | Callable[..., object] | None = None,
) -> Recipe:
    """The recipe with the settings given in addition.

    Raises:
        UsageError: Both a budget and epochs, or a builder that another process cannot import.
        RecipeError: As `load_recipe`.
    """
    if budget is not None and epochs is not None:
        raise UsageError("both a budget and epochs given", allowed="one of them")
    if epochs is not None and epochs < 1:
        raise UsageError(f"{epochs} epochs", allowed="1 or more")
    changes: dict[str, object] = {}
    if budget is not None:
        changes |= {"train.budget": budget, "train.epochs": 0}
    if epochs is not None:
        changes["train.epochs"] = epochs
    if model is not None:
        changes |= {"model.name": model if isinstance(model, str) else _importable_name(model)}
    if isinstance(loss, str):
        changes["loss.terms"] = (loss,)
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    for part in (settings, changes):
        resolved = with_settings(resolved, part) if part else resolved
    validate_recipe(resolved)
    Loss(resolved.loss.terms)  # an unknown name is an error now and not after the preprocessing
    return resolved


def train_folds(
    dataset: Dataset,
    folds: Sequence[Fold],
    recipe: Recipe,
    folder: Path,
    device: str = "auto",
    devices: int = 1,
    *,
    resume: bool = False,
    extras: Extras | None = None,
    cache: CaseCache,
    report: bool = True,
    progress: Progress,
) -> Run:
    """Train folds one after the other, then write the summary and the report.

    Args:
        dataset: The cases, checked.
        folds: The folds to train.
        recipe: May hold `auto`.
        folder: The run's folder.
        device: As in `train`.
        devices: As in `train`.
        resume: Keep complete folds and continue interrupted ones.
        extras: Loss, augmentation and callbacks of the user.
        cache: Cases that were read before.
        report: Write the HTML report.
        progress: Receives the progress.
    """
    from farvox.report import write_report

    import_optional("matplotlib", "train")  # for the report: better missing now than after the training
    interrupted = False
    fabric = setup_fabric(recipe, device, devices)
    if not fabric.is_global_zero:
        progress = NullProgress()
    for one in folds:
        if resume and is_complete(folder, one):
            progress.message(f"fold {one.name} is complete")
            continue
        validated = f", {len(one.validation)} validation cases" if one.validation else ""
        progress.message(f"fold {one.name}: {len(one.training)} training cases{validated}; recipe {recipe.name}")
        reset_peak_memory(fabric.device)
        result = run_fold(dataset, one, recipe, folder, progress, fabric, resume=resume, extras=extras, cache=cache)
        if result.stop_reason == "interrupted":
            bundle = folder / f"fold-{one.name}" / "bundle"
            progress.message(
                f"interrupted after {result.step} steps; the network so far is in {bundle}"
                "; repeat the command with --resume (resume=True) to continue"
            )
            interrupted = True
            break
        metrics = Run.read(folder).fold(one.name).metrics if fabric.is_global_zero else None
        if metrics and (dice := metrics.summary.foreground.dice.mean) is not None:
            progress.message(
                f"fold {one.name}: mean foreground Dice {dice:.3f} on {len(one.validation)} validation scans"
            )
    destroy_process_group(fabric)
    summarise_run(folder, dataset, recipe)
    if report and not interrupted:
        progress.update("write report", 0.0)
        write_report(folder)
        progress.update("write report", 1.0)
    return replace(Run.read(folder), interrupted=interrupted)


def _importable_name(builder: Callable[..., nn.Module]) -> str:
    """ "package.module:function" of a builder."""
    module, name = getattr(builder, "__module__", ""), getattr(builder, "__qualname__", "")
    if not module or module == "__main__" or "<" in name or "." in name:
        raise UsageError(
            f"the builder {name or builder!r} cannot be imported by another process",
            allowed="a function at the top of a module that can be imported",
            hint="move it into a file of its own, or register it with farvox.register_model",
        )
    return f"{module}:{name}"
