"""Snapshots of learned offsets during training, for the figures of the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from farvox._atomic import atomic_file
from farvox.types import Array, FloatArray

_NAME = "offsets.npz"


class OffsetLog:
    """`offsets.npz`: `step`, `minutes`, `field_of_view_mm` and, for each sparse layer, `offsets/<layer>` over time.

    Args:
        folder: Folder of the file; its snapshots up to `step` are kept.
        network: Layers whose `offsets` are learned are followed.
        field_of_view_mm: Mean field of view in training, of scans or patches, mm; an offset of 1 is half of it.
        step: Steps trained before.
    """

    def __init__(self, folder: Path, network: torch.nn.Module, field_of_view_mm: FloatArray, step: int) -> None:
        self._path = folder / _NAME
        self._layers = {
            name.removesuffix(".offsets") or "network": value
            for name, value in network.named_parameters()
            if name.rpartition(".")[2] == "offsets" and value.requires_grad
        }
        self._held: dict[str, list[Array]] = {"step": [], "minutes": [], **{self._key(n): [] for n in self._layers}}
        self._extent = field_of_view_mm
        if step and self._layers and self._path.exists():
            with np.load(self._path) as stored:
                kept = int((stored["step"] <= step).sum())
                self._held = {name: list(stored[name][:kept]) for name in self._held}
        elif not step:
            self._path.unlink(missing_ok=True)

    def note(self, step: int, seconds: float) -> None:
        """Keep the offsets as they are now; once a step."""
        if not self._layers or step in self._held["step"]:
            return
        self._held["step"].append(np.array(step))
        self._held["minutes"].append(np.array(seconds / 60))
        for name, value in self._layers.items():
            self._held[self._key(name)].append(value.detach().float().cpu().numpy().copy())
        stacked = {name: np.stack(values) for name, values in self._held.items()}
        with atomic_file(self._path) as temporary:
            np.savez(temporary, field_of_view_mm=self._extent, **stacked)  # type: ignore[arg-type]

    @staticmethod
    def _key(layer: str) -> str:
        return f"offsets/{layer}"


def mean_field_of_view_mm(
    shapes: Iterable[tuple[int, int, int]], spacing: tuple[float, float, float] | None
) -> FloatArray:
    """Mean field of view of scans of these shapes, mm; NaN where network space has no spacing."""
    return np.mean(list(shapes), axis=0) * np.array(spacing or (np.nan,) * 3)
