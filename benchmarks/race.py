"""Two ways to do the same work, timed side by side in one process: interleaved, medians, correctness first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        work: What was done.
        against: What it was compared with.
        wanted: What was aimed at, such as "≥ 8" times faster, "≤ 1.0" times its time.
        ratio: Time of the other over ours for "≥", ours over the other for "≤"; MB for memory.
        ours: Median seconds.
        theirs: Median seconds.
        error: Largest difference of the two answers, relative to the largest value; None where they answer differently.
    """

    work: str
    against: str
    wanted: str
    ratio: float
    ours: float
    theirs: float
    error: float | None

    @property
    def reached(self) -> bool:
        """Whether the aim was met."""
        sign, number = self.wanted.split()[:2]
        return self.ratio >= float(number) if sign == "≥" else self.ratio <= float(number)


def race(ours: Work, theirs: Work, repeats: int, device: str = "cpu") -> tuple[float, float]:
    """Median seconds of each, taking turns, after one run each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for work, kept in zip((ours, theirs), times, strict=True):
            began = _now(device)
            work()
            if turn:
                kept.append(_now(device) - began)
    return statistics.median(times[0]), statistics.median(times[1])


def check(ours: Any, theirs: Any, tolerance: float) -> float:
    """Largest relative difference over pairs of answers; SystemExit beyond the tolerance, and no speed is reported."""
    worst = 0.0
    for a, b in zip(_tensors(ours), _tensors(theirs), strict=True):
        error = ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)).item()
        if not error <= tolerance:  # NaN too
            raise SystemExit(
                f"answers differ by {error:.1e} of their largest value, more than {tolerance:.0e}: no speed"
            )
        worst = max(worst, error)
    return worst


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows as plain data."""
    return [asdict(row) | {"reached": row.reached} for row in rows]


def show(rows: list[Row]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("work", "left"), ("against", "left"), ("wanted", "right"), ("found", "right"),
                           ("ours", "right"), ("theirs", "right"), ("error", "right")):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        memory = row.wanted.endswith("MB")
        found = f"{row.ratio:.0f} MB" if memory else f"{row.ratio:.2f}" if row.ratio < 3 else f"{row.ratio:.1f}"
        times = ["", ""] if memory else [f"{row.ours * 1e3:,.0f} ms", f"{row.theirs * 1e3:,.0f} ms"]
        error = "" if row.error is None else f"{row.error:.0e}"
        colour = "green" if row.reached else "red"
        table.add_row(row.work, row.against, row.wanted, f"[{colour}]{found}[/]", *times, error)
    Console(width=150).print(table)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
