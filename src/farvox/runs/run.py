"""What a report knows: the documents of a run folder, read once, with gaps where a file is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farvox.errors import FarvoxError, UsageError


@dataclass(frozen=True)
class Fold:
    """Documents of one `fold-N` folder.

    Args:
        name: What stands after `fold-`: a number as text, or "all".
        folder: The folder itself.
        log: Events of `log.jsonl` in the order written; empty when there is no log.
        metrics: `metrics.json`, or {} when nothing was validated.
        recipe: Text of the bundle's `recipe.toml`, or "".
        manifest: The bundle's `manifest.json`, or {}.
        split: `split.json`, or {}.
        done: `done.json`, or {} while the fold is not complete.
    """

    name: str
    folder: Path
    log: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)

    def last(self, event: str) -> dict[str, Any]:
        """The last log entry of a kind ("start", "validation", "end"), or {}."""
        return next((entry for entry in reversed(self.log) if entry.get("event") == event), {})


@dataclass(frozen=True)
class CaseResult:
    """One entry of a `metrics.json`, with the fold it belongs to."""

    fold: Fold
    entry: dict[str, Any]

    @property
    def id(self) -> str:
        """Case id."""
        return str(self.entry["case"])

    def value(self, metric: str, label: str | None = None) -> float | None:
        """A metric of one label value (as text), or of the mean over labels; None where undefined."""
        numbers = self.entry["labels"].get(label) if label else self.entry.get("mean")
        return (numbers or {}).get(metric)

    def file(self, role: str) -> Path | None:
        """Where the "scan", "reference" or "prediction" is now; None when none is named or it is gone.

        Paths are absolute or relative to the fold's folder or the current one; predictions move with their run.
        """
        named = self.entry.get(role)
        if not named:
            return None
        candidates = [self.fold.folder / named, Path(named)]
        if role == "prediction":
            candidates.append(self.fold.folder / "predictions" / Path(named).name)
        return next((path for path in candidates if path.exists()), None)


@dataclass(frozen=True)
class RunFiles:
    """All a report is made of. `summary` is `summary.json`, or {} when the run has not come that far."""

    folder: Path
    summary: dict[str, Any]
    folds: tuple[Fold, ...]

    @classmethod
    def read(cls, run: Path) -> RunFiles:
        """Read the documents of a run folder.

        Raises:
            UsageError: The folder holds neither a `summary.json` nor a `fold-N` folder.
            FarvoxError: A document is not JSON.
        """
        folders = sorted((path for path in run.glob("fold-*") if path.is_dir()), key=_numbers_first)
        summary = _json(run / "summary.json")
        if not folders and not summary:
            raise UsageError(
                f"{run} holds no run",
                allowed="a folder with summary.json and fold-N folders",
                hint="name the folder given to `farvox train --out`",
            )
        return cls(run, summary, tuple(_fold(folder) for folder in folders))

    @property
    def cases(self) -> list[CaseResult]:
        """Every validated case of every fold."""
        return [CaseResult(fold, entry) for fold in self.folds for entry in fold.metrics.get("cases", [])]

    @property
    def statistics(self) -> dict[str, Any]:
        """The summary over all cases: of the run, or of its only fold; {} when there is none."""
        if self.summary.get("summary"):
            return self.summary["summary"]
        return self.folds[0].metrics.get("summary", {}) if len(self.folds) == 1 else {}

    @property
    def labels(self) -> list[tuple[str, str]]:
        """(value as text, name) of each foreground label."""
        return [(str(label["value"]), str(label["name"])) for label in self.fact("labels") or []]

    def fact(self, key: str) -> Any:
        """A fact that `summary.json` and each `metrics.json` carry, such as "rule"; None when no file does."""
        documents = [self.summary, *(fold.metrics for fold in self.folds)]
        return next((document[key] for document in documents if key in document), None)


def _numbers_first(folder: Path) -> tuple[bool, int, str]:
    name = folder.name.removeprefix("fold-")
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def _fold(folder: Path) -> Fold:
    recipe = folder / "bundle" / "recipe.toml"
    return Fold(
        name=folder.name.removeprefix("fold-"),
        folder=folder,
        log=_lines(folder / "log.jsonl"),
        metrics=_json(folder / "metrics.json"),
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        manifest=_json(folder / "bundle" / "manifest.json"),
        split=_json(folder / "split.json"),
        done=_json(folder / "done.json"),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FarvoxError(f"{path} is not JSON ({error})", hint="remove the file and repeat the step") from error


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """Events of a log; a line cut short by an interruption is passed over."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return tuple(events)
