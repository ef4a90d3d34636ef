"""Learned offsets of a run: where the sparse layers look before and after training, how far, and how that grew."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from farvox.errors import DataError
from farvox.report import texts
from farvox.report.colours import FEW
from farvox.report.figures import TEXT_COLOUR, new_figure, style_axes, svg
from farvox.report.html_page import note
from farvox.report.tables import table
from farvox.report.texts import DASH
from farvox.runs.run import FoldRun
from farvox.runs.schema import EpochEvent
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 48
"""Bins along the longest axis of a density."""

POINTS = (("median", 50.0), ("95th percentile", 95.0), ("farthest", 100.0))
"""Percentiles of the distances from the centre that are told."""

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
    """What `offsets.npz` of a fold holds.

    Args:
        step: Training step of each snapshot, (T,).
        field_of_view_mm: Mean field of view of the training scans along the network's axes, mm, (3,); NaN where not known.
        layers: Name of each sparse layer → its offsets, (T, K, 3), normalised: 1 is half of the field of view; both
            ends of a pair count.
    """

    step: Array
    field_of_view_mm: FloatArray
    layers: dict[str, FloatArray]

    @classmethod
    def read(cls, path: Path) -> LearnedOffsets:
        """Read the file.

        Raises:
            DataError: It is damaged or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                step, extent = np.atleast_1d(held["step"]), np.asarray(held["field_of_view_mm"], dtype=np.float64)
                layers: dict[str, FloatArray] = {
                    key.removeprefix("offsets/"): _points(np.asarray(held[key], dtype=np.float64), len(step))
                    for key in held.files
                    if key.startswith("offsets/")
                }
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="remove the file") from None
        if extent.shape != (3,) or not layers or not all(layer.size for layer in layers.values()):
            raise DataError(
                f"{path} has {len(layers)} layers and an extent of shape {extent.shape}",
                allowed="at least one layer with offsets, and a field of view along three axes",
                hint="remove the file",
            )
        return cls(step, extent, layers)

    @property
    def unit(self) -> str:
        """What the offsets are told in: mm, or shares of half the field of view where that is not known in mm."""
        return "mm" if np.isfinite(self.field_of_view_mm).all() else "half views"

    def scaled(self, layer: str) -> FloatArray:
        """Offsets of a layer in `unit`, (T, K, 3)."""
        return self.layers[layer] * (self.field_of_view_mm / 2 if self.unit == "mm" else 1.0)

    def reach(self, layer: str) -> FloatArray:
        """Distances of a layer's offsets from the centre in `unit`, (T, K)."""
        return np.linalg.norm(self.scaled(layer), axis=-1)


def offsets_section(folds: Sequence[FoldRun]) -> list[str]:
    """Heading, figures and tables about the folds that kept their offsets; nothing where none did."""
    found: dict[str, LearnedOffsets] = {}
    notes = []
    for fold in folds:
        path = fold.folder / "offsets.npz"
        if path.exists():
            try:
                found[fold.name] = LearnedOffsets.read(path)
            except DataError as error:
                notes.append(note(html.escape(str(error))))
    if not found and not notes:
        return []
    out = ["<h2>Learned offsets</h2>", *notes]
    if not found:
        return out
    name, learned = next(iter(found.items()))
    fold = next(fold for fold in folds if fold.name == name)
    axes = _axes(fold)
    for layer in learned.layers:
        title = f"Offsets of {layer} before and after training, fold {name}"
        picture = svg(density_figure(learned, layer, axes), title)
        out.append(
            f"<figure><h3>Layer {html.escape(layer)}, fold {html.escape(name)}</h3>{picture}"
            f"<figcaption>{texts.OFFSETS}</figcaption></figure>"
        )
    out.append(_reach_table(found))
    out.append(f'<p class="lead">{texts.REACH}</p>')
    if len(learned.step) > 1:
        picture = svg(spread_figure(learned, _epochs(fold, learned), axes), "Spread of the offsets over training")
        out.append(f"<figure>{picture}<figcaption>{texts.SPREAD} Fold {html.escape(name)}.</figcaption></figure>")
    return out


def density_figure(learned: LearnedOffsets, layer: str, axes: Sequence[str]) -> Figure:
    """Number of offsets by place, before (top) and after training (bottom), in the three projections.

    After Fig. 2 of the OBELISK paper (MIDL 2018): logarithmic colours, one scale for all panels, axes in mm. Every
    offset lies within the panels.

    Args:
        learned: The offsets.
        layer: Which layer.
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
    # From a blue that shows on white to one that is nearly black; places without an offset stay white.
    map_ = LinearSegmentedColormap.from_list("offsets", ["#a6cde8", "#4a90c8", "#1c4f93", "#0b1a3d"])
    widths = [float(limit[a]) for a, _ in pairs]
    inches = 7.0 / sum(widths)  # what labels and the colour bar leave of the width
    figure = new_figure(10.5, 1.7 + 2 * inches * max(limit[1:]), layout="constrained")
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


def spread_figure(learned: LearnedOffsets, epochs: tuple[str, FloatArray], axes: Sequence[str]) -> Figure:
    """Standard deviation of the offsets along each axis over the training; a panel a layer.

    Args:
        learned: The offsets.
        epochs: What is counted, and its value at each snapshot.
        axes: Name of each axis.
    """
    layers = list(learned.layers)
    figure = new_figure(10.5, 3.3, layout="constrained")
    title, counted = epochs
    for panel, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        spread = learned.scaled(layer).std(axis=1)
        for axis, name in enumerate(axes):
            panel.plot(counted, spread[:, axis], color=FEW[axis], linewidth=1.8, label=name)
        panel.set(
            xlabel=title,
            ylabel=f"spread of the offsets ({learned.unit})" if panel is figure.axes[0] else "",
            title=layer,
        )
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        style_axes(panel, "both")
    figure.axes[0].legend(frameon=False, labelcolor=TEXT_COLOUR, fontsize=10)
    return figure


def _points(held: Array, snapshots: int) -> FloatArray:
    """Offsets (T, K, 3) or pairs of them (T, K, 2, 3) as (T, N, 3)."""
    if held.ndim not in (3, 4) or held.shape[-1] != 3 or len(held) != snapshots:
        raise ValueError(f"offsets of shape {held.shape} for {snapshots} steps")
    return held.reshape(snapshots, -1, 3)


def _bins(offsets: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """Limit of each axis and edges of square bins, wide enough for all offsets (2, K, 3) and never empty."""
    limit = np.maximum(np.abs(offsets).max(axis=(0, 1)), 1e-3)
    # No axis shorter than a third of the longest, so that panels stay legible.
    limit = np.maximum(limit, limit.max() / 3) * 1.02
    width = 2 * limit.max() / BINS
    bins = np.ceil(2 * limit / width).astype(int)
    limit = bins * width / 2
    return limit, [np.linspace(-side, side, n + 1) for side, n in zip(limit, bins, strict=True)]


def _reach_table(found: Mapping[str, LearnedOffsets]) -> str:
    """Distances from the centre, before → after, a row a fold and layer."""
    several = len(found) > 1
    rows = []
    for name, learned in found.items():
        for layer in learned.layers:
            before, after = learned.reach(layer)[[0, -1]]
            decimals = 1 if learned.unit == "mm" else 3
            told = [[f"{np.percentile(when, p):.{decimals}f}" for when in (before, after)] for _, p in POINTS]
            reach = [f"{first} → <b>{last}</b>" for first, last in told]
            view = " × ".join(f"{mm:.0f}" for mm in learned.field_of_view_mm) + " mm" if learned.unit == "mm" else DASH
            heading = html.escape(layer) + (f", fold {html.escape(name)}" if several else "")
            rows.append([heading, str(learned.layers[layer].shape[1]), *reach, view])
    units = "/".join(sorted({learned.unit for learned in found.values()}))
    titles = [f"{title} ({units})" for title, _ in POINTS]
    return table(["layer", "offsets", *titles, "field of view"], rows)


def _axes(fold: FoldRun) -> list[str]:
    """Names of the network's axes, from the preprocessing in the fold's bundle."""
    return [_AXES[letter] for letter in (fold.manifest.axes if fold.manifest else "RAS")]


def _epochs(fold: FoldRun, learned: LearnedOffsets) -> tuple[str, FloatArray]:
    """Epochs of the snapshots, as the log counts them; steps where it does not say."""
    ends = [(e.step, e.epoch) for e in fold.log if isinstance(e, EpochEvent) and e.epoch and e.step]
    steps = learned.step.astype(np.float64)
    # The first whole epoch ends with its last step; an epoch cut short by the budget would give a wrong length.
    return ("step", steps) if not ends else ("epoch", steps / (ends[0][0] / ends[0][1]))
