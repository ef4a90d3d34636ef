"""A run, fold by fold: plan, prepare, train, predict the unseen scans, evaluate; and the summary over folds."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch

import farvox
from farvox.bundle import LabelEntry, Manifest, ModelEntry, load_bundle, save_bundle
from farvox.data import CaseFiles, Dataset, load_case, read_grid
from farvox.data.patches import open_prepared, prepare_case
from farvox.data.prepare import Preparation
from farvox.devices import pick_device, pick_precision
from farvox.errors import RecipeError, ResourceError, UsageError
from farvox.evaluate import default_tolerance_mm, evaluate_pairs, summarise, write_metrics
from farvox.files import read_json, write_json
from farvox.models import create_model
from farvox.predict import Predictor
from farvox.predict.files import predict_scans
from farvox.recipes import Recipe, dump_recipe, parse_recipe, with_settings
from farvox.train.checkpoint import load_checkpoint
from farvox.train.folds import Fold
from farvox.train.loop import Outcome, Progress, Training
from farvox.train.plan import fingerprint, resolve

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Watcher(Protocol):
    """Whoever shows a run to a person."""

    def say(self, text: str) -> None:
        """A line worth keeping."""

    def stage(self, name: str, share: float) -> None:
        """A stage of a fold and how much of it is done, 0 to 1."""

    def training(self, fold: str, progress: Progress) -> None:
        """A training step was taken."""


@dataclass(frozen=True)
class FoldResult:
    """What a fold gave; `metrics` is None without validation cases or when interrupted."""

    fold: Fold
    outcome: Outcome
    metrics: dict[str, Any] | None


def open_fabric(recipe: Recipe, device: str = "auto", devices: int = 1) -> Fabric:
    """The processes and arithmetic of a run; with several devices the program is started once more for each.

    Args:
        recipe: Says the precision.
        device: As in `pick_device`.
        devices: How many share the work of a fold.

    Raises:
        DeviceError: The device is not there.
    """
    from lightning_fabric import Fabric

    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    picked = pick_device(device)
    precision = pick_precision(recipe.train.precision, picked)
    fabric = Fabric(
        accelerator=picked.type,
        devices=[picked.index] if picked.index is not None else devices,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def run_fold(
    dataset: Dataset, fold: Fold, recipe: Recipe, run: Path, watcher: Watcher, fabric: Fabric, *, resume: bool = False
) -> FoldResult:
    """Train one fold into `run/fold-<name>/`: log, bundle, predictions and metrics of its validation cases.

    Args:
        dataset: The cases, checked.
        fold: Which of them train and which validate.
        recipe: May hold `auto`.
        run: The run's folder.
        watcher: Is told what happens.
        fabric: As from `open_fabric`; its first process alone writes.
        resume: Go on from the fold's checkpoint where there is one.

    Raises:
        UsageError: The fold was begun before and `resume` is not set.
        RecipeError: It was begun with other settings.
        ResourceError: Disk or memory is full.
    """
    folder = run / f"fold-{fold.name}"
    begun = any((folder / name).exists() for name in ("checkpoint.pt", "bundle", "done.json"))
    if begun and not resume:
        raise UsageError(
            f"{folder} is there already",
            remedy="add --resume to go on, --overwrite to begin anew, or choose another --out",
        )
    resolved, preparation = _plan(dataset, fold, recipe, watcher)
    _require_same_settings(folder, resolved, fold)
    entry = ModelEntry(
        name=resolved.model.name,
        in_channels=len(dataset.channels),
        classes=dataset.labels.classes,
        options=resolved.model.options,
    )
    torch.manual_seed(resolved.train.seed)
    network = create_model(entry.name, entry.in_channels, entry.classes, **entry.options)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    prepared = folder / "prepared"
    if fabric.is_global_zero:
        try:
            split = {"fold": fold.name, "training": fold.training, "validation": fold.validation}
            write_json(folder / "split.json", split)
            _prepare(dataset, fold, preparation, prepared, watcher)
        except OSError as error:
            shutil.rmtree(prepared, ignore_errors=True)
            raise ResourceError(
                f"cannot write to {folder}: {error.strerror}", remedy="free space or choose another --out"
            ) from None
    fabric.barrier()
    precision = pick_precision(resolved.train.precision, fabric.device)
    start = {
        "fold": fold.name,
        "dataset": dataset.name,
        "recipe": resolved.name,
        "model": resolved.model.name,
        "parameters": parameters,
        "device": torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else fabric.device.type,
        "devices": fabric.world_size,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "train": fold.training,
        "validation": fold.validation,
    }
    with _graceful_interrupt() as interrupted:
        outcome = Training(
            resolved,
            preparation,
            dataset.labels,
            [open_prepared(prepared, case) for case in fold.training],
            [open_prepared(prepared, case) for case in fold.validation],
            folder,
            fabric,
            precision,
            on_progress=lambda progress: watcher.training(fold.name, progress),
            stop=interrupted.is_set,
        ).run(network, start)
    if not fabric.is_global_zero:
        return FoldResult(fold, outcome, None)
    size = resolved.patch.size
    facts = asdict(outcome) | {"seconds": round(outcome.seconds, 1)}
    manifest = Manifest(
        model=entry,
        parameters=parameters,
        preparation=preparation,
        window=None if isinstance(size, str) else size,
        labels=tuple(
            LabelEntry(value=v, name=n) for v, n in zip(dataset.labels.values, dataset.labels.names, strict=True)
        ),
        ignore=dataset.labels.ignore,
        dataset=dataset.name,
        licence=dataset.licence,
        fold=fold.name,
        training={**facts, "cases": len(fold.training), "precision": precision},
    )
    bundle = save_bundle(folder / "bundle", network, manifest, resolved)
    shutil.rmtree(prepared, ignore_errors=True)
    if outcome.reason == "interrupted":
        return FoldResult(fold, outcome, None)
    metrics = None
    if fold.validation:
        metrics = _evaluate(dataset, fold, bundle, folder, fabric.device, watcher)
        save_bundle(bundle, network, manifest.model_copy(update={"metrics": metrics["summary"]}), resolved)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    write_json(folder / "done.json", facts | {"parameters": parameters})
    return FoldResult(fold, outcome, metrics)


def is_done(run: Path, fold: Fold) -> bool:
    """Whether a fold of the run has been trained and evaluated."""
    return (run / f"fold-{fold.name}" / "done.json").exists()


def summarise_run(run: Path, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Write `summary.json` from all folds finished so far, wherever they were trained, and return it."""
    folds, cases, first = {}, [], None
    for done in sorted(run.glob("fold-*/done.json")):
        facts = read_json(done)
        metrics_path = done.parent / "metrics.json"
        metrics = read_json(metrics_path) if metrics_path.exists() else None
        entry = {key: facts[key] for key in ("seconds", "peak_memory_mb", "parameters", "reason")}
        if metrics:
            first = first or metrics
            cases += metrics["cases"]
            entry |= {
                "cases": len(metrics["cases"]),
                "dice": metrics["summary"]["foreground"]["dice"]["mean"],
            }
        folds[done.parent.name.removeprefix("fold-")] = entry
    summary: dict[str, Any] = {
        "format": "farvox-run/1",
        "dataset": {"name": dataset.name, "cases": len(dataset.cases)},
        "recipe": recipe.name,
        "version": farvox.__version__,
        "folds": folds,
    }
    if first:
        summary |= {key: first[key] for key in ("labels", "rule", "tolerance_mm")}
        summary["summary"] = summarise(cases, dataset.labels)
    write_json(run / "summary.json", summary)
    return summary


def _plan(dataset: Dataset, fold: Fold, recipe: Recipe, watcher: Watcher) -> tuple[Recipe, Preparation]:
    files, prints = dataset.by_id, []
    for number, case in enumerate(fold.training, start=1):
        prints.append(fingerprint(load_case(dataset, files[case])))
        watcher.stage("look at scans", number / len(fold.training))
    return resolve(recipe, prints, dataset.channels)


def _prepare(dataset: Dataset, fold: Fold, preparation: Preparation, folder: Path, watcher: Watcher) -> None:
    files, ids = dataset.by_id, (*fold.training, *fold.validation)
    for number, case in enumerate(ids, start=1):
        prepare_case(load_case(dataset, files[case]), preparation, dataset.labels.classes, folder)
        watcher.stage("prepare scans", number / len(ids))


def _require_same_settings(folder: Path, resolved: Recipe, fold: Fold) -> None:
    """Refuse to go on with other settings than a fold was begun with; only its length may differ."""
    held = load_checkpoint(folder / "checkpoint.pt")
    if held is None:
        return
    before = parse_recipe(held.recipe, str(folder / "checkpoint.pt"))
    length = {f"train.{key}": getattr(before.train, key) for key in ("budget", "epochs", "checkpoint_seconds")}
    old, new = dump_recipe(before), dump_recipe(with_settings(resolved, length))
    if old == new and held.training == fold.training:
        return
    changed = [line for line in new.splitlines() if line not in old.splitlines()] or ["other training cases"]
    raise RecipeError(
        f"fold {fold.name} was begun with other settings; now: {changed[0]}",
        allowed="the settings it was begun with; the budget or the epochs may change",
        remedy="repeat the first command with --resume, or begin anew with --overwrite",
    )


def _evaluate(
    dataset: Dataset, fold: Fold, bundle: Path, folder: Path, device: torch.device, watcher: Watcher
) -> dict[str, Any]:
    """Predict the fold's unseen scans from their files, as a user would, and compare with their labels."""
    cases = [dataset.by_id[case] for case in fold.validation]
    predictor = Predictor([load_bundle(bundle)], str(device))
    out = folder / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    pairs, scans = [], {}
    unlabelled = [CaseFiles(case.id, case.images) for case in cases]
    for number, (case, done) in enumerate(zip(cases, predict_scans(predictor, unlabelled, out), strict=True), start=1):
        if done.mask is None:
            raise ResourceError(done.error or f"case {case.id} could not be predicted")
        assert case.label is not None
        pairs.append((case.id, done.mask, case.label))
        scans[case.id] = case.images[0]
        watcher.stage("predict unseen scans", number / len(cases))
    metrics = evaluate_pairs(
        pairs,
        dataset.labels,
        # One tolerance for the whole dataset, so that the folds can be put together.
        tolerance_mm=default_tolerance_mm(read_grid(case.label) for case in dataset.cases if case.label),
        scans=scans,
        progress=lambda number, total, _case: watcher.stage("evaluate", number / total),
    )
    if metrics["failed"]:
        raise ResourceError(metrics["failed"][0]["error"])
    write_metrics(metrics, folder / "metrics.json")
    return metrics


@contextmanager
def _graceful_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C (or a polite kill) asks the loop to end after its step; a second one ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
