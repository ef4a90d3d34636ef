"""The figure of a registration, after Figure 5 of the OBELISK paper: differences, labels and the field in colours."""

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
from farvox.types import Array, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _HEAD, _SIDE, _LEGEND = 0.1, 0.34, 0.3, 0.95
"""Space between, above, left and right of the panels, inches."""


def registration_figure(
    fixed: Array,
    initial: Array,
    moved: Array,
    field: FloatArray,
    grid: Grid,
    *,
    inside: Array | None = None,
    fixed_labels: Array | None = None,
    labels: tuple[Array, Array] | None = None,
) -> Figure:
    """Draw the differences and the labels (or scans) before and after, and the field, with a row for each plane.

    The slices are those with the most foreground of the fixed labels, else of the propagated labels, else the central
    ones. A single slice has one row. Propagated labels have coloured outlines, the labels of the fixed scan thin white
    ones.

    Args:
        fixed: (I, J, K) intensities of the fixed scan.
        initial: (I, J, K) the moving scan on the fixed grid with the initial translation only.
        moved: (I, J, K) the moving scan on the fixed grid after the registration.
        field: (3, I, J, K) displacement without the initial translation, mm, RAS+.
        grid: Grid of the fixed scan.
        inside: (I, J, K) whether the moved scan has values there; no difference is shown elsewhere.
        fixed_labels: (I, J, K) label values of the fixed scan.
        labels: Propagated label values before and after, (I, J, K) each.
    """
    orient = Orient.to_canonical(grid)
    spacing = orient.target.spacing
    scans = [_rescale_unit(np.asarray(orient.apply(scan), dtype=np.float32)) for scan in (fixed, initial, moved)]
    along = np.tensordot(np.linalg.inv(orient.target.axes), orient.apply(field), 1)  # (3, I, J, K), mm along the axes
    reference = None if fixed_labels is None else orient.apply(fixed_labels)
    propagated = None if labels is None else [orient.apply(values) for values in labels]
    empty = np.zeros(scans[0].shape, np.uint8)
    at = most_foreground_slices(
        empty if reference is None else reference, empty if propagated is None else propagated[1]
    )
    differences = [np.abs(scan - scans[0]) for scan in scans[1:]]
    worst = float(np.percentile(differences[0], 99.5)) or 1.0
    if inside is not None:
        differences[1] = np.where(orient.apply(inside), differences[1], 0)
    maps = [values for values in (reference, *(propagated or [])) if values is not None]
    shown = sorted({int(value) for values in maps for value in np.unique(values)} - {0})
    colours = label_colours(shown)

    thin_axes = [axis for axis in range(3) if scans[0].shape[axis] == 1]
    planes = [(name, across) for name, across in PLANES if not thin_axes or across == thin_axes[0]]
    size = np.array(scans[0].shape) * spacing
    longest = max(_max_in_plane(along, at, across) for _, across in planes)
    last = ("labels before", "labels after") if propagated else ("fixed scan", "moved scan")
    titles = ("difference before", "difference after", *last, "displacement")
    widest = max(size[_in_plane_axes(across)[0]] for _, across in planes)
    total_height = sum(size[_in_plane_axes(across)[1]] for _, across in planes)
    inches = min(2.1 / widest, 7.0 / total_height)
    column = widest * inches
    width = _SIDE + 5 * (column + _GAP) + _LEGEND
    height = _HEAD + total_height * inches + len(planes) * _GAP
    figure = new_figure(width, height, facecolor=BLACK)
    top = height - _HEAD
    for row, (name, across) in enumerate(planes):
        h, v = _in_plane_axes(across)
        wide, tall = size[h] * inches, size[v] * inches
        _text(figure, _SIDE / 2, top - tall / 2, name, rotation=90)
        for number, title in enumerate(titles):
            left = _SIDE + number * (column + _GAP) + (column - wide) / 2
            axes = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
            axes.set_label(f"{title} {name}")
            slices = [np.take(scan, at[across], across) for scan in scans]
            if number < 2:
                _show(axes, np.take(differences[number], at[across], across).T, (size[h], size[v]), worst)
            elif number < 4:
                draw_plane(axes, slices[0 if propagated or number == 2 else 2], (0.0, 1.0), (size[h], size[v]))
                if reference is not None:
                    _thin_outline(axes, np.take(reference, at[across], across), spacing[[h, v]])
                if propagated:
                    outlined = np.take(propagated[number - 2], at[across], across)
                    draw_outlines(axes, outlined, spacing[[h, v]], colours)
            else:
                # The horizontal axis increases to the left, as in radiology.
                right, up = -np.take(along[h], at[across], across), np.take(along[v], at[across], across)
                picture = flow_colours(right, up, longest)
                _show(axes, picture.transpose(1, 0, 2), (size[h], size[v]), None)
            if number == 0:
                draw_letters(axes, LETTERS[h], LETTERS[v])
            if row == 0:
                _text(figure, _SIDE + number * (column + _GAP) + column / 2, height - _HEAD / 2, title)
                if number == 0:
                    draw_scale_bar(axes, size[h], size[v])
        top -= tall + _GAP
    _legend(figure, longest, width, height)
    return figure


def _in_plane_axes(across: int) -> tuple[int, int]:
    h, v = (axis for axis in range(3) if axis != across)
    return h, v


def _rescale_unit(scan: FloatArray) -> FloatArray:
    """Intensities rescaled from the 1st and 99th percentile to 0 and 1, and clipped."""
    low, high = np.percentile(scan, (1, 99))
    return np.asarray(np.clip((scan - low) / max(float(high - low), 1e-6), 0, 1))


def _max_in_plane(along: FloatArray, at: tuple[int, ...], across: int) -> float:
    """The 99.5th percentile of the displacements' length within a plane, mm, at least 0.001."""
    h, v = _in_plane_axes(across)
    inside = np.hypot(np.take(along[h], at[across], across), np.take(along[v], at[across], across))
    return max(float(np.percentile(inside, 99.5)), 1e-3)


def _show(axes: Axes, picture: Array, size: tuple[float, float], worst: float | None) -> None:
    """Show an image of rows × columns (× RGB) with the geometry of `draw_plane`."""
    scale = {} if worst is None else {"cmap": "inferno", "vmin": 0.0, "vmax": worst}
    axes.imshow(picture, origin="lower", extent=(0, size[0], 0, size[1]), interpolation="nearest", **scale)  # type: ignore[arg-type]
    axes.set_aspect("equal")
    axes.set(xlim=(size[0], 0), ylim=(0, size[1]))
    axes.set_axis_off()


def _thin_outline(axes: Axes, labels: Array, spacing: FloatArray) -> None:
    padded = np.pad(labels, 1)
    x, y = ((np.arange(n + 2) - 0.5) * size for n, size in zip(labels.shape, spacing, strict=True))
    for value in np.unique(labels)[1:]:
        mask = (padded == value).T.astype(float)
        # White with a dark rim is visible on bright and dark tissue.
        axes.contour(x, y, mask, levels=[0.5], colors=[BLACK], linewidths=1.8, alpha=0.6)
        axes.contour(x, y, mask, levels=[0.5], colors=["white"], linewidths=0.8)


def _legend(figure: Figure, longest: float, width: float, height: float) -> None:
    side = 0.62
    left, low = width - _LEGEND + (_LEGEND - side) / 2, height - _HEAD - side
    axes = figure.add_axes((left / width, low / height, side / width, side / height))
    axes.set_label("colour wheel")
    axes.imshow(colour_wheel(), origin="lower", extent=(-1, 1, -1, 1))
    axes.set_axis_off()
    _text(figure, width - _LEGEND / 2, low - 0.14, f"rim: {longest:.2g} mm", size=8)


def _text(figure: Figure, x: float, y: float, text: str, size: int = 10, rotation: int = 0) -> None:
    """Text centred at a position in inches."""
    width, height = figure.get_size_inches()
    x, y = x / width, y / height
    figure.text(x, y, text, color=LIGHT, fontsize=size, rotation=rotation, ha="center", va="center")


def flow_colours(right: FloatArray, up: FloatArray, longest: float) -> FloatArray:
    """Colours of displacements in a plane: the hue is the direction, the saturation is the length.

    Right is red, followed counter-clockwise by yellow, green, cyan (left), blue and magenta. Zero is white.

    Args:
        right: Component to the right, any shape, any unit.
        up: Upward component, same shape.
        longest: Length with full saturation; longer displacements have the same.

    Returns:
        The shape of `right` and 3: red, green and blue, 0 to 1.
    """
    hue = np.arctan2(up, right) / (2 * np.pi)
    saturation = np.clip(np.hypot(right, up) / max(longest, 1e-12), 0, 1)
    # HSV to RGB: the hues of red, green and blue are 0, 1/3 and 2/3.
    channels = [np.clip(np.abs((hue - primary) % 1 * 6 - 3) - 1, 0, 1) for primary in (0, 1 / 3, 2 / 3)]
    out: FloatArray = 1 - saturation[..., None] * (1 - np.stack(channels, -1))
    return out


def colour_wheel(pixels: int = 101) -> FloatArray:
    """(pixels, pixels, 4) RGBA legend of `flow_colours`, first row at the bottom, transparent outside the circle."""
    axis = np.linspace(-1, 1, pixels)
    right, up = np.meshgrid(axis, axis)
    inside = np.hypot(right, up) <= 1
    return np.concatenate((flow_colours(right, up, 1.0), inside[..., None].astype(float)), -1)
