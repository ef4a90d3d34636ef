"""A run, fold by fold: plan, prepare, train, predict the unseen scans, evaluate; and the summary over folds."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

import farvox
from farvox.bundle import LabelEntry, Manifest, ModelEntry, load_bundle, save_bundle
from farvox.data import CaseFiles, Dataset, load_case, read_grid
from farvox.data.patches import PreparedCase, prepare_case
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


def run_fold(
    dataset: Dataset,
    fold: Fold,
    recipe: Recipe,
    run: Path,
    watcher: Watcher,
    *,
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
) -> FoldResult:
    """Train one fold into `run/fold-<name>/`: log, bundle, predictions and metrics of its validation cases.

    Args:
        dataset: The cases, checked.
        fold: Which of them train and which validate.
        recipe: May hold `auto`.
        run: The run's folder.
        watcher: Is told what happens.
        device: As in `pick_device`.
        devices: How many GPUs share the work.
        resume: Go on from the fold's checkpoint where there is one.

    Raises:
        UsageError: The fold was begun before and `resume` is not set.
        RecipeError: It was begun with other settings.
        ResourceError: Disk or memory is full.
    """
    from lightning_fabric import Fabric

    folder = run / f"fold-{fold.name}"
    prepared = folder / "prepared"
    begun = any((folder / name).exists() for name in ("checkpoint.pt", "bundle", "done.json"))
    if begun and not resume:
        raise UsageError(
            f"{folder} is there already",
            remedy="add --resume to go on, --overwrite to begin anew, or choose another --out",
        )
    picked = pick_device(device)
    files = {case.id: case for case in dataset.cases}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        resolved, preparation = _plan(dataset, fold, recipe, files, watcher)
        resolved = _same_settings(folder, resolved, fold)
        write_json(folder / "split.json", {"fold": fold.name, "training": fold.training, "validation": fold.validation})
        cases = _prepare(dataset, fold.training, files, preparation, prepared, watcher)
        unseen = _prepare(dataset, fold.validation, files, preparation, prepared, watcher)
    except OSError as error:
        shutil.rmtree(prepared, ignore_errors=True)
        raise ResourceError(
            f"cannot write to {folder}: {error.strerror}", remedy="free space or choose another --out"
        ) from None
    precision = pick_precision(resolved.train.precision, picked)
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=picked.type,
        devices=[picked.index] if picked.index is not None else devices,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    torch.manual_seed(resolved.train.seed)
    network = create_model(
        resolved.model.name,
        in_channels=len(dataset.channels),
        classes=dataset.labels.classes,
        **resolved.model.options,
    )
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    with _graceful_interrupt() as interrupted:
        training = Training(
            resolved,
            preparation,
            dataset.labels,
            cases,
            unseen,
            folder,
            fabric,
            precision,
            on_progress=lambda progress: watcher.training(fold.name, progress),
            stop=interrupted.is_set,
        )
        start = {
            "fold": fold.name,
            "dataset": dataset.name,
            "recipe": resolved.name,
            "model": resolved.model.name,
            "parameters": parameters,
            "device": torch.cuda.get_device_name(picked) if picked.type == "cuda" else picked.type,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "train": list(fold.training),
            "validation": list(fold.validation),
        }
        outcome = training.run(network, start)
    facts = {
        "reason": outcome.reason,
        "epoch": outcome.epoch,
        "step": outcome.step,
        "seconds": round(outcome.seconds, 1),
        "peak_memory_mb": outcome.peak_memory_mb,
    }
    size = resolved.patch.size
    manifest = Manifest(
        model=ModelEntry(
            name=resolved.model.name,
            in_channels=len(dataset.channels),
            classes=dataset.labels.classes,
            options=resolved.model.options,
        ),
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
    metrics = None
    if fold.validation and outcome.reason != "interrupted":
        metrics = _evaluate(dataset, [files[c] for c in fold.validation], bundle, folder, device, watcher)
        save_bundle(bundle, network, manifest.model_copy(update={"metrics": metrics["summary"]}), resolved)
    if outcome.reason != "interrupted":
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


def _plan(
    dataset: Dataset, fold: Fold, recipe: Recipe, files: dict[str, CaseFiles], watcher: Watcher
) -> tuple[Recipe, Preparation]:
    prints = []
    for number, case in enumerate(fold.training, start=1):
        prints.append(fingerprint(load_case(dataset, files[case])))
        watcher.stage("look at scans", number / len(fold.training))
    return resolve(recipe, prints, dataset.channels)


def _prepare(
    dataset: Dataset,
    ids: Sequence[str],
    files: dict[str, CaseFiles],
    preparation: Preparation,
    folder: Path,
    watcher: Watcher,
) -> list[PreparedCase]:
    out = []
    for number, case in enumerate(ids, start=1):
        out.append(prepare_case(load_case(dataset, files[case]), preparation, dataset.labels.classes, folder))
        watcher.stage("prepare scans", number / len(ids))
    return out


def _same_settings(folder: Path, resolved: Recipe, fold: Fold) -> Recipe:
    """The settings to go on with; only the length of a training may differ from those it was begun with."""
    held = load_checkpoint(folder / "checkpoint.pt")
    if held is None:
        return resolved
    before = parse_recipe(held.recipe, str(folder / "checkpoint.pt"))
    length = {f"train.{key}": getattr(before.train, key) for key in ("budget", "epochs", "checkpoint_seconds")}
    if dump_recipe(with_settings(resolved, length)) != dump_recipe(before) or held.training != fold.training:
        old, new = dump_recipe(before).splitlines(), dump_recipe(with_settings(resolved, length)).splitlines()
        changed = [line for line in new if line not in old] or ["the training cases"]
        raise RecipeError(
            f"fold {fold.name} was begun with other settings; now: {changed[0]}",
            allowed="the settings it was begun with; the budget or the epochs may change",
            remedy="repeat the first command with --resume, or begin anew with --overwrite",
        )
    return resolved


def _evaluate(
    dataset: Dataset, cases: Sequence[CaseFiles], bundle: Path, folder: Path, device: str, watcher: Watcher
) -> dict[str, Any]:
    """Predict the fold's unseen scans from their files, as a user would, and compare with their labels."""
    predictor = Predictor([load_bundle(bundle)], device)
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
