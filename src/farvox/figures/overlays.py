"""Outlines of reference and prediction over a scan in three planes, to scale in mm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from farvox.figures.style import new_figure
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))
"""Name of each plane and the RAS+ axis normal to it."""

LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
"""Letters at the far and the near end of each RAS+ axis. The far end is left or on top (radiological convention)."""

MARGIN = 0.35
BLACK, LIGHT = "#0b0d10", "#c9d1d9"


def most_foreground_slices(reference: Array, prediction: Array) -> tuple[int, int, int]:
    """Index along each axis of the slice with most foreground (reference, else prediction), else the middle."""
    mask = next((array > 0 for array in (reference, prediction) if np.any(array)), None)
    if mask is None:
        i, j, k = (n // 2 for n in reference.shape)
    else:
        i, j, k = (int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
    return i, j, k


def foreground_box(foreground: Array, spacing: FloatArray) -> tuple[slice, slice, slice]:
    """Box of the foreground, padded by a third of its longest side; without foreground, the whole array."""
    if not foreground.any():
        i, j, k = (slice(0, n) for n in foreground.shape)
        return i, j, k
    bounds = []
    for axis in range(3):
        used = np.flatnonzero(foreground.any(axis=tuple({0, 1, 2} - {axis})))
        bounds.append((int(used[0]), int(used[-1]) + 1))
    margin = MARGIN * max((last - first) * size for (first, last), size in zip(bounds, spacing, strict=True))
    i, j, k = (
        slice(max(0, first - max(1, round(margin / size))), min(count, last + max(1, round(margin / size))))
        for (first, last), size, count in zip(bounds, spacing, foreground.shape, strict=True)
    )
    return i, j, k


def overlay_figure(
    image: Array, reference: Array, prediction: Array | None, spacing: FloatArray, colours: Mapping[int, str]
) -> Figure:
    """Reference (upper row) and prediction (lower row) as outlines over axial, coronal and sagittal planes.

    All panels share one scale in mm. The grey scale spans the 1st to the 99th percentile of the region shown.

    Args:
        image: (I, J, K) intensities in RAS+ order.
        reference: (I, J, K) label values, 0 for background.
        prediction: (I, J, K) label values; None for a figure of one row.
        spacing: Voxel spacing along each axis, mm.
        colours: Label value → colour; other values are not drawn.
    """
    rows = [("reference", reference), ("prediction", prediction)] if prediction is not None else [("", reference)]
    at = most_foreground_slices(reference, rows[-1][1])
    box = foreground_box((reference > 0) | (rows[-1][1] > 0), spacing)
    at = tuple(index - side.start for index, side in zip(at, box, strict=True))
    image = np.asarray(image[box], dtype=np.float32)
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)

    x, y, z = size = np.array(image.shape) * spacing
    gap, head = 0.12, 0.3
    inches = min((10.5 - 3 * gap - head) / (2 * x + y), 3.9 / max(y, z))
    row = max(y, z) * inches
    width, height = (2 * x + y) * inches + 3 * gap + head, len(rows) * (row + gap) + head
    figure = new_figure(width, height, facecolor=BLACK)
    for line, (title, labels) in enumerate(rows):
        middle = height - head - line * (row + gap) - row / 2
        figure.text(
            head / 2 / width, middle / height, title, color=LIGHT, fontsize=11, rotation=90, ha="center", va="center"
        )
        left = head
        for name, across in PLANES:
            h, v = (axis for axis in range(3) if axis != across)
            wide, tall = size[h] * inches, size[v] * inches
            axes = figure.add_axes((left / width, (middle - tall / 2) / height, wide / width, tall / height))
            axes.set_label(f"{title} {name}".strip())
            draw_plane(axes, np.take(image, at[across], across), (low, high), (size[h], size[v]))
            draw_outlines(axes, np.take(labels[box], at[across], across), spacing[[h, v]], colours)
            draw_letters(axes, LETTERS[h], LETTERS[v])
            if line == 0:
                figure.text(
                    (left + wide / 2) / width,
                    1 - head / 2 / height,
                    name,
                    color=LIGHT,
                    fontsize=11,
                    ha="center",
                    va="center",
                )
            if line == len(rows) - 1 and name == "axial":
                draw_scale_bar(axes, size[h], size[v])
            left += wide + gap
    return figure


def draw_plane(axes: Axes, plane: Array, window: tuple[float, float], size: tuple[float, float]) -> None:
    """Show a slice (h, v) of `size` mm in grey values from `window`; its first axis points left."""
    low, high = window
    extent = (0, size[0], 0, size[1])
    top = max(high, low + 1e-6)
    axes.imshow(plane.T, cmap="gray", vmin=low, vmax=top, origin="lower", extent=extent, interpolation="hanning")
    axes.set_aspect("equal")
    axes.set(xlim=(size[0], 0), ylim=(0, size[1]))
    axes.set_axis_off()


def draw_outlines(axes: Axes, labels: Array, spacing: FloatArray, colours: Mapping[int, str]) -> None:
    """Outline label values (h, v) over a slice with `spacing` in mm."""
    present = np.unique(labels)
    # Padding closes outlines that touch the edge.
    padded = np.pad(labels, 1)
    x, y = ((np.arange(n + 2) - 0.5) * size for n, size in zip(labels.shape, spacing, strict=True))
    for value, colour in colours.items():
        if value in present:
            mask = (padded == value).T.astype(float)
            axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[colour], alpha=0.2)
            axes.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=1.6)


def draw_letters(axes: Axes, across: tuple[str, str], up: tuple[str, str]) -> None:
    """Label the four sides of a slice: (left, right), (top, bottom)."""
    positions = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, ha, va) in zip((*across, *up), positions, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, color=LIGHT, fontsize=8, ha=ha, va=va, alpha=0.85)


def draw_scale_bar(axes: Axes, wide: float, tall: float) -> None:
    """Draw a scale bar of a round length; width and height of the slice in mm."""
    length = scale_length(wide)
    right = 0.04 * wide  # the axis points left
    axes.plot([right, right + length], [0.05 * tall] * 2, color=LIGHT, linewidth=2, solid_capstyle="butt")
    axes.text(right + length / 2, 0.07 * tall, f"{length:g} mm", color=LIGHT, fontsize=8, ha="center", va="bottom")


def scale_length(width_mm: float) -> float:
    """Largest length of the form 1, 2 or 5 times a power of ten that is at most a quarter of the width, mm."""
    power = 10.0 ** np.floor(np.log10(width_mm / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_mm / 4))
