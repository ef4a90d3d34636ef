"""A registration at a glance, after Figure 5 of the OBELISK paper: differences, labels, the field in flow colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from farvox.figures.overlays import (
    BLACK,
    LETTERS,
    LIGHT,
    PLANES,
    draw_letters,
    draw_outlines,
    draw_plane,
    draw_scale_bar,
    most_foreground_slices,
)
from farvox.figures.style import label_colours, new_figure
from farvox.geometry import Grid, Orient
from farvox.registration.flow import colour_wheel, flow_colours
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _HEAD, _SIDE, _LEGEND = 0.1, 0.34, 0.3, 0.95
"""Inches between panels, above them, left of them, and right of them."""


def registration_figure(
    fixed: Array,
    start: Array,
    moved: Array,
    deformation: FloatArray,
    grid: Grid,
    *,
    inside: Array | None = None,
    fixed_labels: Array | None = None,
    labels: tuple[Array, Array] | None = None,
) -> Figure:
    """Difference before and after, labels (or scans) before and after, and the field, a row a plane.

    Planes go through most of the fixed labels, else of the propagated ones, else the middle; a single slice has one
    row. Propagated labels are outlined over the fixed scan in colour, the fixed scan's own thinly in white.

    Args:
        fixed: (I, J, K) intensities of the fixed scan.
        start: The moving scan on the fixed grid before deformation.
        moved: The same after.
        deformation: (3, I, J, K) mm, RAS+, without the start.
        grid: The fixed scan's.
        inside: (I, J, K) where the moved scan has values at all; elsewhere no difference is shown.
        fixed_labels: (I, J, K) label values of the fixed scan.
        labels: Propagated label values before and after.
    """
    orient = Orient.to_canonical(grid)
    spacing = orient.target.spacing
    scans = [_unit(np.asarray(orient.apply(scan), dtype=np.float32)) for scan in (fixed, start, moved)]
    along = np.tensordot(
        np.linalg.inv(orient.target.axes), orient.apply(deformation), 1
    )  # (3, I, J, K), mm along the axes
    own = None if fixed_labels is None else orient.apply(fixed_labels)
    carried = None if labels is None else [orient.apply(values) for values in labels]
    nothing = np.zeros(scans[0].shape, np.uint8)
    at = most_foreground_slices(nothing if own is None else own, nothing if carried is None else carried[1])
    differences = [np.abs(scan - scans[0]) for scan in scans[1:]]
    worst = float(np.percentile(differences[0], 99.5)) or 1.0
    if inside is not None:
        differences[1] = np.where(orient.apply(inside), differences[1], 0)
    shown = sorted(
        {int(v) for values in [own, *(carried or [])] if values is not None for v in np.unique(values)} - {0}
    )
    colours = label_colours(shown)

    flat = [axis for axis in range(3) if scans[0].shape[axis] == 1]
    planes = [(name, across) for name, across in PLANES if not flat or across == flat[0]]
    size = np.array(scans[0].shape) * spacing
    most = max(_longest(along, at, across) for _, across in planes)
    last = ("labels before", "labels after") if carried else ("fixed scan", "moved scan")
    titles = ("difference before", "difference after", *last, "displacement")
    widest = max(size[_sides(across)[0]] for _, across in planes)
    tallness = sum(size[_sides(across)[1]] for _, across in planes)
    inches = min(2.1 / widest, 7.0 / tallness)
    column = widest * inches
    width = _SIDE + 5 * (column + _GAP) + _LEGEND
    height = _HEAD + tallness * inches + len(planes) * _GAP
    figure = new_figure(width, height, facecolor=BLACK)
    top = height - _HEAD
    for row, (name, across) in enumerate(planes):
        h, v = _sides(across)
        wide, tall = size[h] * inches, size[v] * inches
        figure.text(
            _SIDE / 2 / width,
            (top - tall / 2) / height,
            name,
            color=LIGHT,
            fontsize=10,
            rotation=90,
            ha="center",
            va="center",
        )
        for number, title in enumerate(titles):
            left = _SIDE + number * (column + _GAP) + (column - wide) / 2
            axes = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
            axes.set_label(f"{title} {name}")
            cut = [np.take(scan, at[across], across) for scan in scans]
            if number < 2:
                _show(axes, np.take(differences[number], at[across], across).T, (size[h], size[v]), worst)
            elif number < 4:
                draw_plane(axes, cut[0 if carried or number == 2 else 2], (0.0, 1.0), (size[h], size[v]))
                if own is not None:
                    _thin(axes, np.take(own, at[across], across), spacing[[h, v]])
                if carried:
                    values = np.take(carried[number - 2], at[across], across)
                    draw_outlines(axes, values, spacing[[h, v]], colours)
            else:
                # Axes run leftward, so what grows along them points left.
                picture = flow_colours(
                    -np.take(along[h], at[across], across), np.take(along[v], at[across], across), most
                )
                _show(axes, picture.transpose(1, 0, 2), (size[h], size[v]), None)
            if number == 0:
                draw_letters(axes, LETTERS[h], LETTERS[v])
            if row == 0:
                middle = _SIDE + number * (column + _GAP) + column / 2
                figure.text(
                    middle / width, 1 - _HEAD / 2 / height, title, color=LIGHT, fontsize=10, ha="center", va="center"
                )
                if number == 0:
                    draw_scale_bar(axes, size[h], size[v])
        top -= tall + _GAP
    _legend(figure, most, width, height)
    return figure


def _sides(across: int) -> tuple[int, int]:
    h, v = (axis for axis in range(3) if axis != across)
    return h, v


def _unit(scan: FloatArray) -> FloatArray:
    """Intensities with 0 at the 1st and 1 at the 99th percentile."""
    low, high = np.percentile(scan, (1, 99))
    return np.clip((scan - low) / max(float(high - low), 1e-6), 0, 1)


def _longest(along: FloatArray, at: tuple[int, ...], across: int) -> float:
    """Length within the plane that one in two hundred of its displacements exceeds, mm; at least a thousandth."""
    h, v = _sides(across)
    inside = np.hypot(np.take(along[h], at[across], across), np.take(along[v], at[across], across))
    return max(float(np.percentile(inside, 99.5)), 1e-3)


def _show(axes: Axes, picture: Array, size: tuple[float, float], worst: float | None) -> None:
    """Put rows × columns (× RGB) where `draw_plane` would put a slice."""
    scale = {} if worst is None else {"cmap": "inferno", "vmin": 0.0, "vmax": worst}
    axes.imshow(picture, origin="lower", extent=(0, size[0], 0, size[1]), interpolation="nearest", **scale)  # type: ignore[arg-type]
    axes.set_aspect("equal")
    axes.set(xlim=(size[0], 0), ylim=(0, size[1]))
    axes.set_axis_off()


def _thin(axes: Axes, labels: Array, spacing: FloatArray) -> None:
    padded = np.pad(labels, 1)
    x, y = ((np.arange(n + 2) - 0.5) * size for n, size in zip(labels.shape, spacing, strict=True))
    for value in np.unique(labels)[1:]:
        mask = (padded == value).T.astype(float)
        # White with a dark rim, to be seen on bright and on dark.
        axes.contour(x, y, mask, levels=[0.5], colors=[BLACK], linewidths=1.8, alpha=0.6)
        axes.contour(x, y, mask, levels=[0.5], colors=["white"], linewidths=0.8)


def _legend(figure: Figure, most: float, width: float, height: float) -> None:
    side = 0.62
    left, low = width - _LEGEND + (_LEGEND - side) / 2, height - _HEAD - side
    axes = figure.add_axes((left / width, low / height, side / width, side / height))
    axes.set_label("colour wheel")
    axes.imshow(colour_wheel(), origin="lower", extent=(-1, 1, -1, 1))
    axes.set_axis_off()
    middle = width - _LEGEND / 2
    figure.text(
        middle / width, (low - 0.14) / height, f"rim: {most:.2g} mm", color=LIGHT, fontsize=8, ha="center", va="center"
    )
