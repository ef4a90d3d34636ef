"""How work in progress is shown: bars with the time left on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from farvox.training.loop import Progress

_LINE_SECONDS = 15.0


class Watch:
    """Shows a run; on a terminal one bar for what is being done, elsewhere a line every quarter of a minute."""

    def __init__(self, console: Console, silent: bool = False) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console, self._silent = console, silent
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
            transient=True,
            disable=silent or not console.is_terminal,
        )
        self._task = self._bars.add_task("", total=1.0, left="", detail="")
        self._said_at = time.monotonic()

    def __enter__(self) -> Watch:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line worth keeping."""
        if not self._silent:
            self._console.print(text, markup=False)

    def stage(self, name: str, share: float) -> None:
        """A stage of a fold and how much of it is done, 0 to 1."""
        self._bars.update(self._task, description=name, completed=share, left="", detail="")

    def training(self, fold: str, progress: Progress) -> None:
        """A training step was taken."""
        left = f"{_clock(progress.seconds_left)} left" if progress.seconds_left is not None else ""
        dice = f", Dice {progress.dice:.3f}" if progress.dice is not None else ""
        detail = f"epoch {progress.epoch}, loss {progress.loss:.3f}{dice}"
        self._bars.update(
            self._task, description=f"train fold {fold}", completed=progress.share, left=left, detail=detail
        )
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._said_at > _LINE_SECONDS or progress.share >= 1):
            self._said_at = now
            self.say(f"fold {fold}: {progress.share:4.0%}, {left}, step {progress.step}, {detail}")


@contextmanager
def scan_bar(console: Console, scans: int) -> Iterator[Callable[[str, float], None] | None]:
    """A bar over all scans with the current one's name; nothing where there is no terminal."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=scans)
        seen: list[str] = []

        def told(case: str, share: float) -> None:
            if case not in seen:
                seen.append(case)
            bars.update(task, description=case, completed=len(seen) - 1 + share)

        yield told


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
