"""Learned offsets of a run: their distribution before and after training, and their standard deviation during it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from farvox.errors import DataError
from farvox.figures.style import FEW_COLOURS, TEXT_COLOUR, new_figure, style_axes, svg
from farvox.report.formats import render
from farvox.report.texts import DASH
from farvox.runs.run import FoldRun
from farvox.runs.schema import EpochEvent
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

BINS = 48
"""Bins along the longest axis of a density."""

POINTS = (("median", 50.0), ("95th percentile", 95.0), ("farthest", 100.0))
"""Percentiles of the distances from the centre that are reported."""

_AXES = {
    "R": "left to right",
    "L": "right to left",
    "A": "back to front",
    "P": "front to back",
    "S": "foot to head",
    "I": "head to foot",
}


@dataclass(frozen=True)
class LearnedOffsets:
    """The content of a fold's `offsets.npz`.

    Attributes:
        step: Training step of each snapshot, (T,).
        field_of_view_mm: Mean field of view in training along the network's axes, mm, (3,); NaN if unknown.
        layers: Name of each sparse layer → its offsets, (T, K, 3), in units of half the field of view; both ends of a
            pair are counted.
    """

    step: Array
    field_of_view_mm: FloatArray
    layers: dict[str, FloatArray]

    @classmethod
    def read(cls, path: Path) -> LearnedOffsets:
        """Read the file.

        Raises:
            DataError: The file is damaged or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                step, view = np.atleast_1d(stored["step"]), np.asarray(stored["field_of_view_mm"], dtype=np.float64)
                layers: dict[str, FloatArray] = {
                    key.removeprefix("offsets/"): _points(np.asarray(stored[key], dtype=np.float64), len(step))
                    for key in stored.files
                    if key.startswith("offsets/")
                }
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="remove the file") from None
        if view.shape != (3,) or not layers or not all(layer.size for layer in layers.values()):
            raise DataError(
                f"{path} has {len(layers)} layers and a field of view of shape {view.shape}",
                allowed="at least one layer with offsets, and a field of view along three axes",
                hint="remove the file",
            )
        return cls(step, view, layers)

    @property
    def unit(self) -> str:
        """Unit of the offsets: mm, or half fields of view if the field of view is unknown."""
        return "mm" if np.isfinite(self.field_of_view_mm).all() else "half fields of view"

    def scaled(self, layer: str) -> FloatArray:
        """Offsets of a layer in `unit`, (T, K, 3)."""
        scale = self.field_of_view_mm / 2 if self.unit == "mm" else np.ones(3)
        scaled: FloatArray = self.layers[layer] * scale
        return scaled

    def distances(self, layer: str) -> FloatArray:
        """Distances of a layer's offsets from the centre in `unit`, (T, K)."""
        distances: FloatArray = np.sqrt((self.scaled(layer) ** 2).sum(-1))
        return distances


def offsets_section(folds: Sequence[FoldRun]) -> Markup | str:
    """The section of a report about learned offsets; empty if no fold has any."""
    learned: dict[str, LearnedOffsets] = {}
    errors = []
    for fold in folds:
        path = fold.folder / "offsets.npz"
        if path.exists():
            try:
                learned[fold.name] = LearnedOffsets.read(path)
            except DataError as error:
                errors.append(str(error))
    if not learned and not errors:
        return ""
    context: dict[str, object] = {
        "errors": errors,
        "fold": "",
        "layers": [],
        "rows": [],
        "distances": [],
        "sd": None,
    }
    if learned:
        name, first = next(iter(learned.items()))
        fold = next(fold for fold in folds if fold.name == name)
        axes = [_AXES[letter] for letter in (fold.manifest.axes if fold.manifest else "RAS")]
        title = "Offsets of {} before and after training, fold " + name
        units = "/".join(sorted({offsets.unit for offsets in learned.values()}))
        context |= {
            "fold": name,
            "layers": [(la, svg(density_figure(first, la, axes), title.format(la))) for la in first.layers],
            "rows": _distance_rows(learned),
            "distances": [f"{percentile} ({units})" for percentile, _ in POINTS],
        }
        if len(first.step) > 1:
            context["sd"] = svg(sd_figure(first, _epochs(fold, first), axes), "Standard deviation of the offsets")
    return render("offsets.html.j2", **context)


def density_figure(learned: LearnedOffsets, layer: str, axes: Sequence[str]) -> Figure:
    """Number of offsets before (top) and after training (bottom), in the three projections.

    After Fig. 2 of the OBELISK paper (MIDL 2018): logarithmic colours, one scale for all panels, axes in mm. The
    panels contain all offsets.

    Args:
        learned: The offsets.
        layer: Name of the layer.
        axes: Name of each axis.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    offsets = learned.scaled(layer)[[0, -1]]
    limit, edges = _bins(offsets)
    pairs = [(0, 1), (0, 2), (1, 2)]
    counts = [
        [np.histogram2d(when[:, a], when[:, b], bins=(edges[a], edges[b]))[0] for a, b in pairs] for when in offsets
    ]
    most = max(float(count.max()) for row in counts for count in row)
    scale = LogNorm(1, max(most, 2.0))
    # From a blue that is visible on white to one that is nearly black; bins without offsets stay white.
    map_ = LinearSegmentedColormap.from_list("offsets", ["#a6cde8", "#4a90c8", "#1c4f93", "#0b1a3d"])
    widths = [float(limit[a]) for a, _ in pairs]
    inches = 7.0 / sum(widths)  # without labels and colour bar
    figure = new_figure(10.5, 1.7 + 2 * inches * max(limit[1:]), constrained=True)
    panels = figure.subplots(2, 3, squeeze=False, width_ratios=widths)
    for row, when in enumerate(("before training", "after training")):
        for column, (a, b) in enumerate(pairs):
            panel = panels[row][column]
            panel.set(aspect="equal", xlim=(-limit[a], limit[a]), ylim=(-limit[b], limit[b]))
            panel.set(
                xlabel=f"{axes[a]} ({learned.unit})", ylabel=f"{axes[b]} ({learned.unit})", title="" if column else when
            )
            style_axes(panel, "both")
            panel.patch.set(visible=True, facecolor="#ffffff")
            shown = np.ma.masked_less(counts[row][column].T, 1)
            panel.pcolormesh(edges[a], edges[b], shown, cmap=map_, norm=scale, rasterized=True)
    bar = figure.colorbar(ScalarMappable(scale, map_), ax=panels, shrink=0.7, pad=0.02)
    bar.set_label("offsets in a bin", color=TEXT_COLOUR, fontsize=11)
    bar.ax.tick_params(which="both", colors=TEXT_COLOUR, labelsize=10)
    bar.outline.set_visible(False)
    return figure


def sd_figure(learned: LearnedOffsets, epochs: tuple[str, FloatArray], axes: Sequence[str]) -> Figure:
    """Standard deviation of the offsets along each axis during training, with a panel for each layer.

    Args:
        learned: The offsets.
        epochs: Title of the horizontal axis ("epoch" or "step"), and its value at each snapshot.
        axes: Name of each axis.
    """
    layers = list(learned.layers)
    figure = new_figure(10.5, 3.3, constrained=True)
    title, positions = epochs
    for panel, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        sd = learned.scaled(layer).std(axis=1)
        for axis, name in enumerate(axes):
            panel.plot(positions, sd[:, axis], color=FEW_COLOURS[axis], linewidth=1.8, label=name)
        panel.set(
            xlabel=title,
            ylabel=f"sd of the offsets ({learned.unit})" if panel is figure.axes[0] else "",
            title=layer,
        )
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        style_axes(panel, "both")
    figure.axes[0].legend(frameon=False, labelcolor=TEXT_COLOUR, fontsize=10)
    return figure


def _points(offsets: Array, snapshots: int) -> FloatArray:
    """Offsets (T, K, 3) or pairs of them (T, K, 2, 3) as (T, N, 3)."""
    if offsets.ndim not in (3, 4) or offsets.shape[-1] != 3 or len(offsets) != snapshots:
        raise ValueError(f"offsets of shape {offsets.shape} for {snapshots} steps")
    return offsets.reshape(snapshots, -1, 3)


def _bins(offsets: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Limit of each axis and edges of square bins that contain all offsets (2, K, 3)."""
    limit = np.maximum(np.abs(offsets).max(axis=(0, 1)), 1e-3)
    # Each axis is at least a third of the longest, so that the panels are legible.
    limit = np.maximum(limit, limit.max() / 3) * 1.02
    width = 2 * limit.max() / BINS
    bins = np.ceil(2 * limit / width).astype(int)
    limit = bins * width / 2
    return limit, [np.linspace(-side, side, n + 1) for side, n in zip(limit, bins, strict=True)]


def _distance_rows(learned: Mapping[str, LearnedOffsets]) -> list[dict[str, object]]:
    """Distances from the centre before and after training, for each fold and layer."""
    rows: list[dict[str, object]] = []
    for fold, offsets in learned.items():
        mm = offsets.unit == "mm"
        for layer, values in offsets.layers.items():
            snapshots = offsets.distances(layer)[[0, -1]]
            rows.append(
                {
                    "layer": f"{layer}, fold {fold}" if len(learned) > 1 else layer,
                    "count": values.shape[1],
                    "distances": [
                        [f"{np.percentile(distances, p):.{1 if mm else 3}f}" for distances in snapshots]
                        for _, p in POINTS
                    ],
                    "field_of_view": " × ".join(f"{v:.0f}" for v in offsets.field_of_view_mm) + " mm" if mm else DASH,
                }
            )
    return rows


def _epochs(fold: FoldRun, learned: LearnedOffsets) -> tuple[str, FloatArray]:
    """Epochs of the snapshots according to the log; steps if it has no epochs."""
    ends = [(e.step, e.epoch) for e in fold.log if isinstance(e, EpochEvent) and e.epoch and e.step]
    steps = learned.step.astype(np.float64)
    # From the first epoch, because the budget may cut the last one short.
    return ("step", steps) if not ends else ("epoch", steps / (ends[0][0] / ends[0][1]))
