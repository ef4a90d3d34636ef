"""How work in progress is reported: one protocol for every function, with a console and a notebook bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rich.console import Console

_LINE_SECONDS = 15.0


@runtime_checkable
class Progress(Protocol):
    """Receives the progress of a running function.

    Any object with these two methods can be passed as `progress=` to the functions of farvox.
    """

    def update(self, task: str, fraction: float, **info: object) -> None:
        """A task has advanced.

        Args:
            task: What is being done, such as "train fold 0" or a case id.
            fraction: The fraction of the task that is done, 0 to 1.
            **info: Further values to show, such as `loss=0.31` or `seconds_left=42.0`.
        """

    def message(self, text: str) -> None:
        """A line that is worth keeping, such as a note or the result of a fold."""


class NullProgress:
    """Shows nothing."""

    def update(self, task: str, fraction: float, **info: object) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""


class ConsoleProgress:
    """Shows a bar on a terminal or in a notebook, and a line every 15 seconds elsewhere.

    Args:
        console: Where to print; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bars.add_task("", total=1.0, detail="")
        self._printed_at = time.monotonic()

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, task: str, fraction: float, **info: object) -> None:
        """Move the bar to a task and its fraction; a completed task ends the bar."""
        detail = ", ".join(_described(key, value) for key, value in info.items() if value is not None)
        if self._live:
            self._bars.start()
            self._bars.update(self._task, description=task, completed=fraction, detail=detail)
            if fraction >= 1:
                self._bars.stop()
        now = time.monotonic()
        if not self._live and info and (now - self._printed_at > _LINE_SECONDS or fraction >= 1):
            self._printed_at = now
            self.message(f"{task}: {fraction:4.0%}, {detail}")

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False)


def resolve_progress(progress: Progress | bool | None) -> Progress:
    """The object that receives progress.

    Args:
        progress: An object with the two methods of `Progress`. True shows a bar or lines, False shows nothing. None
            shows a bar in a notebook and on a terminal, and nothing elsewhere.
    """
    if isinstance(progress, Progress):
        return progress
    if progress is None:
        progress = sys.stderr.isatty() or _in_notebook()
    return ConsoleProgress() if progress else NullProgress()


def as_callback(progress: Progress, task: str, start: float = 0.0, stop: float = 1.0) -> Callable[[float], None]:
    """A function of the fraction done of one part of a task, which spans `start` to `stop` of the whole."""
    return lambda fraction: progress.update(task, start + (stop - start) * fraction)


def format_clock(seconds: float) -> str:
    """Seconds as 3:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _described(key: str, value: object) -> str:
    if key == "seconds_left" and isinstance(value, (int, float)):
        return f"{format_clock(value)} left"
    return f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"
