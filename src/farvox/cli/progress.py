"""A progress bar over scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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
