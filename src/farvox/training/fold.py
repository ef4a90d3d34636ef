"""One fold of a run: plan, prepare, train, save, predict the validation scans, evaluate."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from farvox._optional import import_optional
from farvox.bundle import Bundle, Inference, LabelEntry, Manifest, ModelEntry, save_bundle
from farvox.bundle.save_load import add_metrics
from farvox.data import Dataset
from farvox.data.folds import Fold
from farvox.data.load import label_grid, label_path
from farvox.devices import resolve_device, resolve_precision
from farvox.errors import ResourceError, UsageError
from farvox.evaluation import Metrics, default_tolerance_mm, evaluate_files
from farvox.io import write_mask
from farvox.io.names import mask_suffix
from farvox.models import count_parameters, create_model, create_on_meta
from farvox.prediction import Predictor
from farvox.preprocessing.cache import CaseCache
from farvox.preprocessing.cases import PreprocessedCase
from farvox.preprocessing.config import Preprocessing
from farvox.preprocessing.planning import resolve
from farvox.progress import Progress
from farvox.recipes import Recipe
from farvox.runs import schema
from farvox.runs.identity import fold_identity
from farvox.runs.lock import locked
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
        devices: Number of devices for each fold.

    Raises:
        DeviceError: The device is not there.
    """
    Fabric = import_optional("lightning_fabric", "train").Fabric
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    first_device = resolve_device(device, devices)
    precision = resolve_precision(recipe.train.precision, first_device)
    staged = hasattr(create_on_meta(recipe.model.name, recipe.model.options), "set_training_progress")
    fabric = Fabric(
        accelerator=first_device.type,
        devices=[first_device.index] if first_device.index is not None else devices,
        # Weights that are not trained in a stage get no gradient; DDP must expect this.
        strategy="ddp_find_unused_parameters_true" if devices > 1 and staged else "auto",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def destroy_process_group(fabric: Fabric) -> None:
    """Close the connections between the processes of a run; the first continues, the others exit."""
    if fabric.world_size == 1:
        return
    torch.distributed.destroy_process_group()
    if not fabric.is_global_zero:
        # Exit immediately: an exception during interpreter shutdown would also terminate the first process.
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
    cache: CaseCache,
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
        cache: Cases that were read before; it outlives the fold.

    Raises:
        UsageError: The fold exists and `resume` is not set.
        ResourceError: Disk or memory is full.
    """
    folder = run / f"fold-{fold.name}"
    with locked(folder, progress) if fabric.is_global_zero else nullcontext():
        return _run_fold(dataset, fold, recipe, folder, progress, fabric, resume, extras or Extras(), cache)


def _run_fold(
    dataset: Dataset,
    fold: Fold,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    fabric: Fabric,
    resume: bool,
    extras: Extras,
    cache: CaseCache,
) -> TrainingResult:
    exists = any((folder / name).exists() for name in ("checkpoint.pt", "bundle")) or read_result(folder)
    if exists and not resume:
        raise UsageError(
            f"{folder} exists already",
            hint="add --resume to continue it, --overwrite to start again, or choose another --out",
        )
    if "left-right" in recipe.augment.flip and dataset.labels.unpaired_sides:
        progress.message(
            f"note: no left/right partner for {', '.join(dataset.labels.unpaired_sides)}; they are mirrored as they are"
        )
    prepared = folder / "prepared"
    resolved, preprocessing = _plan(dataset, fold, recipe, cache, progress)
    entry = ModelEntry(
        name=resolved.model.name,
        in_channels=len(dataset.channels),
        classes=dataset.labels.classes,
        options=resolved.model.options,
    )
    torch.manual_seed(resolved.train.seed)
    network = create_model(entry.name, entry.in_channels, entry.classes, **entry.options)
    parameters = count_parameters(network)
    try:
        if fabric.is_global_zero:
            fold_identity(dataset, fold, recipe).write(folder / "split.json")
            opened = _preprocess(dataset, fold, preprocessing, cache, prepared, progress)
        fabric.barrier()
        if not fabric.is_global_zero:  # these find what the first process wrote
            opened = _preprocess(dataset, fold, preprocessing, cache, prepared, progress)
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
                [opened[case] for case in fold.training],
                [opened[case] for case in fold.validation],
                folder,
                fabric,
                precision,
                on_progress=lambda state: _report(progress, fold, state),
                stop=interrupted.is_set,
                extras=extras,
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
    if fold.validation:
        trained = Bundle(network.eval(), manifest, resolved, bundle)
        metrics = _evaluate(dataset, fold, trained, cache, folder, fabric.device, progress)
        add_metrics(bundle, metrics.summary.model_dump(mode="json"))
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


def _plan(
    dataset: Dataset, fold: Fold, recipe: Recipe, cache: CaseCache, progress: Progress
) -> tuple[Recipe, Preprocessing]:
    cases, fingerprints = dataset.cases_by_id, []
    for number, case in enumerate(fold.training, start=1):
        fingerprints.append(cache.fingerprint(cases[case]))
        progress.update(f"fold {fold.name}: plan", number / len(fold.training))
    return resolve(recipe, fingerprints, dataset.channels)


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


def _preprocess(
    dataset: Dataset, fold: Fold, preprocessing: Preprocessing, cache: CaseCache, folder: Path, progress: Progress
) -> dict[str, PreprocessedCase]:
    """Every case of the fold on the network's grid, by id."""
    cases, opened = dataset.cases_by_id, {}
    for case in (*fold.training, *fold.validation):
        opened[case] = cache.preprocessed(cases[case], preprocessing, folder)
        progress.update("preprocess scans", len(opened) / (len(fold.training) + len(fold.validation)))
    return opened


def _evaluate(
    dataset: Dataset,
    fold: Fold,
    bundle: Bundle,
    cache: CaseCache,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> Metrics:
    """Predict the validation scans of a fold with the network in memory, and compare the masks with their labels."""
    predictor = Predictor([bundle], str(device) if device.type == "cuda" else device.type)
    out = folder / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    pairs, scans, seconds = [], {}, {}
    for number, case in enumerate((dataset.cases_by_id[id] for id in fold.validation), start=1):
        scan, started = cache.scan(case), time.monotonic()
        mask = out / f"{case.id}{mask_suffix(case.images[0])}"
        write_mask(mask, predictor.segment(scan, progress=False), scan)
        seconds[case.id] = round(time.monotonic() - started, 3)
        pairs.append((case.id, mask, label_path(case, folder / "references" / mask.name)))
        scans[case.id] = case.images[0]
        progress.update("predict validation scans", number / len(fold.validation))
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
