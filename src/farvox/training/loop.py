"""The training loop: steps, log, validation and checkpoints; it ends by budget, epochs or Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from farvox.devices import Precision, peak_memory_mb
from farvox.errors import DataError, FarvoxError
from farvox.labels import IGNORE, LabelTable
from farvox.losses import Loss, class_weights
from farvox.prediction.predictor import make_predict_fn
from farvox.prediction.sliding_window import sliding_window_inference
from farvox.preprocessing.cases import PreprocessedCase, class_counts
from farvox.preprocessing.config import Preprocessing
from farvox.recipes import Recipe
from farvox.runs.schema import EndEvent, EpochEvent, LogEvent, StartEvent, ValidationEvent
from farvox.sampling.samplers import BatchSampler, PatchSampler, PointSampler, Rank, patch_size
from farvox.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from farvox.training.offsets import OffsetLog, mean_field_of_view_mm
from farvox.training.optimiser import make_optimiser
from farvox.training.schedule import TrainingClock, learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_VALIDATIONS = 10
_VALIDATION_CASES = 6
_SNAPSHOTS = 20
"""Times that learned offsets are noted."""
_VALIDATION_SHARE = 0.05
"""Part of a time budget that may go into learning curves."""

Reason = Literal["budget", "epochs", "interrupted"]


@dataclass(frozen=True)
class TrainingState:
    """Where the training is, for whoever shows it."""

    fraction_done: float
    epoch: int
    step: int
    loss: float
    seconds: float
    seconds_left: float | None
    dice: float | None
    """Mean foreground Dice of the latest validation, in network space."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    stop_reason: Reason
    epoch: int
    step: int
    seconds: float
    peak_memory_mb: float


class TrainingDivergedError(FarvoxError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Extras:
    """Loss, augmentation and callbacks of the user; see `farvox.train`."""

    loss: Callable[..., object] | None = None
    augment: Callable[..., object] | None = None
    callbacks: tuple[object, ...] = ()


@dataclass
class Training:
    """One network on one fold.

    Args:
        recipe: Resolved: no `auto` left.
        preprocessing: How scans came into network space.
        labels: The label table.
        cases: Prepared training cases.
        validation: Prepared validation cases; a few of them are scored now and then for the learning curve.
        folder: Gets `log.jsonl` and `checkpoint.pt`.
        fabric: Devices and precision.
        precision: For scoring between steps.
        on_progress: Called after every step.
        stop: Asked after every step whether to end early.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    labels: LabelTable
    cases: Sequence[PreprocessedCase]
    validation: Sequence[PreprocessedCase]
    folder: Path
    fabric: Fabric
    precision: Precision
    on_progress: Callable[[TrainingState], None]
    stop: Callable[[], bool]
    extras: Extras = Extras()

    def fit(self, network: torch.nn.Module, start: StartEvent) -> TrainingResult:
        """Train `network` in place, from the folder's checkpoint if there is one.

        Args:
            network: Freshly built; its weights are replaced when resuming.
            start: Facts for the log's first line.
        """
        settings = self.recipe.train
        network.to(self.fabric.device)  # before the optimiser's state is loaded, which follows its parameters
        optimiser = make_optimiser(network, settings)
        stored = load_checkpoint(self.folder / "checkpoint.pt")
        if stored and (stored.preprocessing, stored.training) != self._origin():
            raise DataError(
                "the scans have changed since the training started",
                allowed="the scans and labels it was started with",
                hint="restore them, or start again with --overwrite",
            )
        if stored:
            network.load_state_dict(stored.network)
            optimiser.load_state_dict(stored.optimiser)
        sampler = self._sampler(network)
        wrapped, optimiser = self.fabric.setup(network, optimiser)
        if self.recipe.points.count:
            wrapped.mark_forward_method("forward_points_batch")
        counts = torch.from_numpy(class_counts(self.cases))
        weights = class_weights(counts).float() if self.recipe.loss.class_weights else None
        own_loss: Any = self.extras.loss
        loss_function = own_loss or Loss(self.recipe.loss.terms, weights, self.recipe.loss.keep_fraction)
        if isinstance(loss_function, torch.nn.Module):
            loss_function.to(self.fabric.device)
        log = JsonLinesLog(self.folder / "log.jsonl", stored.log_bytes if stored else 0, self.fabric.is_global_zero)
        if not stored:
            self._emit(log, "on_start", start)
        clock = TrainingClock.of(self.recipe, sampler.steps_per_epoch, stored.seconds if stored else 0.0)
        step = stored.step if stored else 0
        loss_sum, loss_steps = (stored.loss_sum, stored.loss_steps) if stored else (0.0, 0)
        dice: float | None = None
        saved_at = time.monotonic()
        validating = 0.0
        # Offsets are fractions of the network's input: a patch, or a whole scan.
        sizes = (patch_size(self.recipe, case) for case in self.cases)
        extent = mean_field_of_view_mm(sizes, self.preprocessing.spacing)
        track = OffsetLog(self.folder, network, extent, step) if self.fabric.is_global_zero else None
        if track:
            track.note(step, clock.seconds)
        network.train()
        enter_stage: Callable[[float], None] | None = getattr(network, "set_training_progress", None)
        while True:
            # The first process decides for all, whose clocks and signals may differ.
            done, stop = self.fabric.broadcast((clock.progress(step), self.stop()))
            if done >= 1:
                reason: Reason = "epochs" if settings.epochs else "budget"
                break
            if stop:
                reason = "interrupted"
                break
            decay_steps = settings.inverse_decay * step
            rate = learning_rate(settings.learning_rate, done, settings.schedule, settings.warmup, decay_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            if enter_stage:
                enter_stage(done)
            value = self._step(step, sampler, wrapped, optimiser, loss_function)
            step += 1
            loss_sum, loss_steps = loss_sum + value, loss_steps + 1
            now = clock.progress(step)
            epoch = step // sampler.steps_per_epoch
            if step % sampler.steps_per_epoch == 0 or now >= 1:
                ended = EpochEvent(
                    epoch=epoch,
                    step=step,
                    fraction_done=round(now, 6),
                    seconds=round(clock.seconds, 2),
                    loss=loss_sum / loss_steps,
                    learning_rate=rate,
                )
                self._emit(log, "on_epoch", ended)
                loss_sum, loss_steps = 0.0, 0
            if track and (int(now * _SNAPSHOTS) > int(done * _SNAPSHOTS) or now >= 1):
                track.note(step, clock.seconds)
            due = int(now * _VALIDATIONS) > int(done * _VALIDATIONS)
            if self.validation and due and validating <= _VALIDATION_SHARE * clock.total_seconds * now:
                began = clock.seconds
                by_label = self._validate(network)
                validating += clock.seconds - began if clock.total_seconds else 0.0
                dice = float(np.mean(list(by_label.values()))) if by_label else None
                seconds = round(clock.seconds, 2)
                validated = ValidationEvent(epoch=epoch, step=step, seconds=seconds, dice=by_label, mean=dice)
                self._emit(log, "on_validation", validated)
            state = TrainingState(now, epoch, step, value, clock.seconds, clock.seconds_left(step), dice)
            self.on_progress(state)
            self._notify("on_step", state)
            if time.monotonic() - saved_at > settings.checkpoint_seconds:
                self._save(network, optimiser, step, clock, log, loss_sum, loss_steps)
                saved_at = time.monotonic()
        self._save(network, optimiser, step, clock, log, loss_sum, loss_steps)
        outcome = TrainingResult(
            reason, step // sampler.steps_per_epoch, step, clock.seconds, peak_memory_mb(self.fabric.device)
        )
        # After the checkpoint, so that a continued run removes this line.
        self._emit(log, "on_end", EndEvent(**asdict(outcome)))
        return outcome

    def _emit(self, log: JsonLinesLog, method: str, event: LogEvent) -> None:
        """Write an event to the log and call the callbacks with it."""
        log.write(event)
        self._notify(method, event)

    def _notify(self, method: str, event: object) -> None:
        """Call a method of the callbacks that have it, in the first process."""
        for callback in self.extras.callbacks if self.fabric.is_global_zero else ():
            if function := getattr(callback, method, None):
                function(event)

    def _sampler(self, network: Any) -> BatchSampler:
        rank = Rank(self.fabric.global_rank, self.fabric.world_size, self.fabric.device)
        what = (self.recipe, self.preprocessing, self.labels, self.cases, rank)
        if self.recipe.points.count:
            return PointSampler(*what, network, self.folder / "prepared")
        return PatchSampler(*what, augment=self.extras.augment)

    def _step(
        self, step: int, sampler: BatchSampler, network: Any, optimiser: Any, loss_function: torch.nn.Module
    ) -> float:
        """One step down the gradient; returns the loss before it."""
        key = self._key(step)
        batch = sampler.batch(step, np.random.default_rng(key))
        torch.manual_seed(key)
        with self.fabric.autocast():
            outputs = sampler.forward(network, batch)
        # A network may have several outputs in training; the loss is their mean.
        loss = torch.stack([loss_function(logits, batch.target) for logits in outputs]).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"the loss became {value} at step {step}",
                hint="start again with --overwrite and a lower train.learning_rate, or train.precision=float32",
            )
        optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        limit = self.recipe.train.gradient_clip_norm
        if limit:
            self.fabric.clip_gradients(network, optimiser, max_norm=limit, error_if_nonfinite=False)
        optimiser.step()
        return value

    def _origin(self) -> tuple[str, tuple[str, ...]]:
        """What a checkpoint must match to be continued."""
        return self.preprocessing.model_dump_json(), tuple(case.id for case in self.cases)

    def _key(self, step: int) -> int:
        """Seed of everything random in a step on this device."""
        key = np.random.SeedSequence([self.recipe.train.seed, step, self.fabric.global_rank])
        return int(key.generate_state(1)[0])

    def _validate(self, network: torch.nn.Module) -> dict[int, float]:
        """Dice of each label over a few validation cases together, in network space."""
        network.eval()
        predict_fn = make_predict_fn(network, self.fabric.device, self.precision, self.recipe.patch.normalize)
        indices = np.unique(np.linspace(0, len(self.validation) - 1, _VALIDATION_CASES).astype(int))
        overlap, volume = np.zeros(self.labels.classes), np.zeros(self.labels.classes)
        for index in indices:
            case = self.validation[index]
            parts = sliding_window_inference(
                predict_fn,
                case.slab,
                case.shape,
                patch_size(self.recipe, case),
                overlap=0.25,
                blend=self.recipe.patch.blend,
            )
            prediction = torch.cat([part.argmax(0).to(torch.uint8).cpu() for part in parts], -1).numpy()
            truth = np.asarray(case.classes)
            annotated = truth != IGNORE
            for c in range(self.labels.classes):
                p, t = (prediction == c) & annotated, truth == c
                overlap[c] += 2 * (p & t).sum()
                volume[c] += p.sum() + t.sum()
        network.train()
        return {value: float(overlap[c] / volume[c]) for c, value, _ in self.labels.foreground if volume[c]}

    def _save(
        self,
        network: torch.nn.Module,
        optimiser: Any,
        step: int,
        clock: TrainingClock,
        log: JsonLinesLog,
        loss_sum: float,
        loss_steps: int,
    ) -> None:
        if not self.fabric.is_global_zero:
            return
        save_checkpoint(
            self.folder / "checkpoint.pt",
            Checkpoint(
                step=step,
                seconds=clock.seconds,
                network=network.state_dict(),
                optimiser=optimiser.state_dict(),
                log_bytes=log.size,
                preprocessing=self._origin()[0],
                training=self._origin()[1],
                loss_sum=loss_sum,
                loss_steps=loss_steps,
            ),
        )


class JsonLinesLog:
    """`log.jsonl`: one JSON object a line, truncated to the checkpoint's length when a run continues."""

    def __init__(self, path: Path, keep: int, active: bool) -> None:
        self._path, self._active = path, active
        if active:
            with path.open("ab") as file:
                file.truncate(keep)

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def write(self, event: LogEvent) -> None:
        if self._active:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(event.model_dump_json() + "\n")
