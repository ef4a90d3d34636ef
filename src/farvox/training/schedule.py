"""Fraction of the training that is done, by time or by epochs, and the learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from farvox.recipes import Recipe, parse_duration


@dataclass
class TrainingClock:
    """Progress from 0 to 1 by steps (repeatable) or by seconds trained, over all sittings of a resumed run.

    Args:
        total_steps: Steps to take; 0 when seconds decide.
        total_seconds: Seconds to train; 0 when steps decide.
        before: Seconds trained in earlier sittings.
        clock: Counts seconds.
    """

    total_steps: int
    total_seconds: float
    before: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self.clock()

    @classmethod
    def of(cls, recipe: Recipe, steps_per_epoch: int, before: float = 0.0) -> TrainingClock:
        """The clock of a recipe."""
        clock = time.process_time if recipe.train.clock == "cpu" else time.monotonic
        if recipe.train.epochs:
            return cls(recipe.train.epochs * steps_per_epoch, 0.0, before, clock)
        return cls(0, parse_duration(recipe.train.budget), before, clock)

    @property
    def seconds(self) -> float:
        """Seconds trained so far."""
        return self.before + self.clock() - self._started

    def progress(self, step: int) -> float:
        """Share of the training that is done after `step` steps."""
        fraction = step / self.total_steps if self.total_steps else self.seconds / self.total_seconds
        return min(fraction, 1.0)

    def seconds_left(self, step: int) -> float | None:
        """Estimate of the seconds to come; None before the first step."""
        done = self.progress(step)
        return self.seconds * (1 - done) / done if done > 0 else None


def learning_rate(peak: float, progress: float, schedule: str, warmup: float, decay_steps: float = 0.0) -> float:
    """Learning rate at a progress of 0 to 1: a linear rise over `warmup`, then the schedule's fall.

    "cosine" and "polynomial" end at zero, "exponential" at 4.9 % (0.99 an epoch, 300 epochs: OBELISK, 2019).
    "halving" takes half after each 20th part (every 50 of 1000 epochs: Eschen, 2018), "inverse" divides by 1 +
    `decay_steps`, the steps so far times the decay a step.
    """
    if progress < warmup:
        return peak * (0.05 + 0.95 * progress / warmup)
    rest = (progress - warmup) / (1 - warmup)
    fall = {
        "cosine": 0.5 * (1 + math.cos(math.pi * rest)),
        "polynomial": (1 - rest) ** 0.9,
        "exponential": 0.99 ** (300 * rest),
        "halving": 0.5 ** int(20 * rest + 1e-9),
        "inverse": 1 / (1 + decay_steps),
        "constant": 1.0,
    }
    return peak * fall[schedule]
