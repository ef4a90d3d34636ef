"""One fold of a run: plan, prepare, train, save, predict the unseen scans, evaluate."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from farvox._optional import import_optional
from farvox.bundle import Inference, LabelEntry, Manifest, ModelEntry, load_bundle, save_bundle
from farvox.data import CasePaths, Dataset, load_case
from farvox.data.folds import Fold
from farvox.data.load import label_grid, label_path
from farvox.devices import resolve_device, resolve_precision
from farvox.errors import ResourceError, UsageError
from farvox.evaluation import Metrics, default_tolerance_mm, evaluate_files
from farvox.models import count_parameters, create_model, create_on_meta
from farvox.prediction import Predictor
from farvox.prediction.files import predict_scans
from farvox.preprocessing.cases import open_preprocessed, preprocess_case
from farvox.preprocessing.config import Preprocessing
from farvox.preprocessing.planning import fingerprint, resolve
from farvox.progress import Progress
from farvox.recipes import Recipe
from farvox.runs import schema
from farvox.runs.identity import fold_identity
from farvox.runs.run import read_result
from farvox.training.interrupt import graceful_interrupt
from farvox.training.loop import Extras, Training, TrainingResult, TrainingState

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def setup_fabric(recipe: Recipe, device: str = "auto", devices: int = 1) -> Fabric:
    """The processes and arithmetic of a run; with several devices the program is started once more for each.

    Args:
        recipe: Says the precision.
        device: As in `resolve_device`.
        devices: How many share the work of a fold.

    Raises:
        DeviceError: The device is not there.
    """
    Fabric = import_optional("lightning_fabric", "train").Fabric
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    picked = resolve_device(device, devices)
    precision = resolve_precision(recipe.train.precision, picked)
    staged = hasattr(create_on_meta(recipe.model.name, recipe.model.options), "set_training_progress")
    fabric = Fabric(
        accelerator=picked.type,
        devices=[picked.index] if picked.index is not None else devices,
        # Weights that rest for a stage get no gradient, which processes have to be told to expect.
        strategy="ddp_find_unused_parameters_true" if devices > 1 and staged else "auto",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def destroy_process_group(fabric: Fabric) -> None:
    """Close the connections between the processes of a run; the first goes on alone, the others end here."""
    if fabric.world_size == 1:
        return
    torch.distributed.destroy_process_group()
    if not fabric.is_global_zero:
        # At once: a library that stumbles while the interpreter is taken down would end the first process, too.
        os._exit(0)


def run_fold(
    dataset: Dataset,
    fold: Fold,
    recipe: Recipe,
    run: Path,
    progress: Progress,
    fabric: Fabric,
    *,
    resume: bool = False,
    extras: Extras | None = None,
) -> TrainingResult:
    """Train one fold into `run/fold-<name>/`: log, bundle, predictions and metrics of its validation cases.

    Args:
        dataset: The cases, checked.
        fold: Which of them train and which validate.
        recipe: May hold `auto`.
        run: The run's folder.
        progress: Receives the progress.
        fabric: As from `setup_fabric`; its first process alone writes.
        resume: Continue from the fold's checkpoint if there is one.
        extras: Loss, augmentation and callbacks of the user.

    Raises:
        UsageError: The fold exists and `resume` is not set.
        ResourceError: Disk or memory is full.
    """
    folder = run / f"fold-{fold.name}"
    begun = any((folder / name).exists() for name in ("checkpoint.pt", "bundle")) or read_result(folder)
    if begun and not resume:
        raise UsageError(
            f"{folder} exists already",
            hint="add --resume to continue it, --overwrite to start again, or choose another --out",
        )
    if "left-right" in recipe.augment.flip and dataset.labels.unpaired_sides:
        progress.message(
            f"note: no left/right partner for {', '.join(dataset.labels.unpaired_sides)}; they are mirrored as they are"
        )
    resolved, preprocessing = _plan(dataset, fold, recipe, progress)
    entry = ModelEntry(
        name=resolved.model.name,
        in_channels=len(dataset.channels),
        classes=dataset.labels.classes,
        options=resolved.model.options,
    )
    torch.manual_seed(resolved.train.seed)
    network = create_model(entry.name, entry.in_channels, entry.classes, **entry.options)
    parameters = count_parameters(network)
    prepared = folder / "prepared"
    try:
        if fabric.is_global_zero:
            fold_identity(dataset, fold, recipe).write(folder / "split.json")
            _prepare(dataset, fold, preprocessing, prepared, progress)
        fabric.barrier()
        precision = resolve_precision(resolved.train.precision, fabric.device)
        start = schema.StartEvent(
            fold=fold.name,
            dataset=dataset.name,
            recipe=resolved.name,
            model=resolved.model.name,
            parameters=parameters,
            device=torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else fabric.device.type,
            devices=fabric.world_size,
            precision=precision,
            threads=torch.get_num_threads(),
            training_cases=tuple(fold.training),
            validation_cases=tuple(fold.validation),
        )
        with graceful_interrupt() as interrupted:
            outcome = Training(
                resolved,
                preprocessing,
                dataset.labels,
                [open_preprocessed(prepared, case) for case in fold.training],
                [open_preprocessed(prepared, case) for case in fold.validation],
                folder,
                fabric,
                precision,
                on_progress=lambda state: _report(progress, fold, state),
                stop=interrupted.is_set,
                extras=extras or Extras(),
            ).fit(network, start)
    finally:
        if fabric.is_global_zero:
            shutil.rmtree(prepared, ignore_errors=True)
    if not fabric.is_global_zero:
        return outcome
    facts = asdict(outcome) | {"seconds": round(outcome.seconds, 1)}
    training = {**facts, "cases": len(fold.training), "precision": precision}
    manifest = _manifest(dataset, fold, resolved, preprocessing, entry, parameters, training)
    bundle = save_bundle(folder / "bundle", network, manifest, resolved)
    if outcome.stop_reason == "interrupted":
        return outcome
    metrics = None
    if fold.validation:
        metrics = _evaluate(dataset, fold, bundle, folder, fabric.device, progress)
        evaluated = manifest.model_copy(update={"metrics": metrics.summary.model_dump(mode="json")})
        save_bundle(bundle, network, evaluated, resolved)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    schema.FoldResult(**facts, parameters=parameters).write(folder / "result.json")
    return outcome


def _report(progress: Progress, fold: Fold, state: TrainingState) -> None:
    progress.update(
        f"train fold {fold.name}",
        state.fraction_done,
        seconds_left=state.seconds_left,
        step=state.step,
        epoch=state.epoch,
        loss=state.loss,
        Dice=state.dice,
    )


def _plan(dataset: Dataset, fold: Fold, recipe: Recipe, progress: Progress) -> tuple[Recipe, Preprocessing]:
    files, prints = dataset.cases_by_id, []
    for number, case in enumerate(fold.training, start=1):
        prints.append(fingerprint(load_case(dataset, files[case])))
        progress.update(f"fold {fold.name}: read scans", number / len(fold.training))
    return resolve(recipe, prints, dataset.channels)


def _manifest(
    dataset: Dataset,
    fold: Fold,
    resolved: Recipe,
    preprocessing: Preprocessing,
    entry: ModelEntry,
    parameters: int,
    training: dict[str, Any],
) -> Manifest:
    table = dataset.labels
    return Manifest(
        model=entry,
        parameters=parameters,
        preprocessing=preprocessing,
        inference=Inference.from_recipe(resolved),
        labels=tuple(LabelEntry(value=v, name=n) for v, n in zip(table.values, table.names, strict=True)),
        ignore=table.ignore,
        dataset=dataset.name,
        licence=dataset.licence,
        fold=fold.name,
        training=training,
    )


def _prepare(dataset: Dataset, fold: Fold, preprocessing: Preprocessing, folder: Path, progress: Progress) -> None:
    files, ids = dataset.cases_by_id, (*fold.training, *fold.validation)
    for number, case in enumerate(ids, start=1):
        loaded = load_case(dataset, files[case])
        try:
            preprocess_case(loaded, preprocessing, dataset.labels.classes, folder)
        except OSError as error:
            raise ResourceError(
                f"cannot write to {folder}: {error.strerror}", hint="free space or choose another --out"
            ) from None
        progress.update("preprocess scans", number / len(ids))


def _evaluate(
    dataset: Dataset, fold: Fold, bundle: Path, folder: Path, device: torch.device, progress: Progress
) -> Metrics:
    """Predict the fold's unseen scans from their files, as a user would, and compare with their labels."""
    cases = [dataset.cases_by_id[case] for case in fold.validation]
    predictor = Predictor([load_bundle(bundle)], str(device) if device.type == "cuda" else device.type)
    out = folder / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    pairs, scans, seconds = [], {}, {}
    unlabelled = [CasePaths(case.id, case.images) for case in cases]
    for number, (case, done) in enumerate(zip(cases, predict_scans(predictor, unlabelled, out), strict=True), start=1):
        if done.mask is None:
            raise ResourceError(done.error or f"case {case.id} could not be predicted")
        pairs.append((case.id, done.mask, label_path(case, folder / "references" / done.mask.name)))
        scans[case.id], seconds[case.id] = case.images[0], round(done.seconds, 3)
        progress.update("predict validation scans", number / len(cases))
    metrics = evaluate_files(
        pairs,
        dataset.labels,
        # One tolerance for the whole dataset, so that the folds can be put together.
        tolerance_mm=default_tolerance_mm(label_grid(case) for case in dataset.cases if case.label),
        scans=scans,
    )
    if metrics.failed:
        raise ResourceError(metrics.failed[0].error)
    timed = tuple(case.model_copy(update={"seconds": seconds[case.case]}) for case in metrics.cases)
    metrics = metrics.model_copy(update={"cases": timed})
    metrics.write(folder / "metrics.json")
    return metrics
