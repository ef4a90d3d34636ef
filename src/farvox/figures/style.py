"""Style of all figures: empty figures, axes, label colours, and the conversion to HTML."""

from __future__ import annotations

import base64
import colorsys
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Key = TypeVar("_Key", int, str)

TEXT_COLOUR = "#010203"
"""Replaced by the text colour of the page when a figure is written as SVG; nearly black elsewhere."""

FEW_COLOURS = ("#e4572e", "#56b4e9", "#00a878", "#f2c230", "#cc79a7", "#8c6ff0", "#b5651d")
"""After Okabe and Ito: distinguishable with the common colour deficiencies, visible on grey, white and black."""

_PNG_BYTES = 500_000


def label_colours(labels: Sequence[_Key]) -> dict[_Key, str]:
    """Label → hex colour: a fixed set for up to seven labels, evenly spaced hues for more.

    Adjacent labels get distant hues, because adjacent values are often adjacent structures.
    """
    if len(labels) <= len(FEW_COLOURS):
        return dict(zip(labels, FEW_COLOURS, strict=False))
    return {label: _hue(index, len(labels)) for index, label in enumerate(labels)}


def _hue(index: int, count: int) -> str:
    # The ranks of multiples of the golden ratio are a permutation that puts adjacent labels far apart.
    turns = [(i * 0.618034) % 1 for i in range(count)]
    hue = sorted(range(count), key=turns.__getitem__).index(index) / count
    red, green, blue = colorsys.hls_to_rgb(hue, (0.62, 0.48, 0.72)[index % 3], 0.75)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def new_figure(width: float, height: float, *, constrained: bool = False, facecolor: str | None = None) -> Figure:
    """An empty figure of `width` × `height` inches with the Agg canvas, independent of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if constrained else None, facecolor=facecolor)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Keep the left and bottom spine, and draw a faint grid along `grid`."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=TEXT_COLOUR, alpha=0.5)
    axes.grid(axis=grid, color=TEXT_COLOUR, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=3, labelsize=10)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set(color=TEXT_COLOUR, fontsize=11)


def svg(figure: Figure, title: str) -> Markup:
    """The figure as an inline `<svg>` in the font and text colour of the page; `title` labels it for screen readers."""
    import matplotlib
    from markupsafe import Markup

    buffer = io.StringIO()
    # Text stays text, which is small and searchable. The salt makes ids unique in a page and equal between runs.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=blank)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[A-Za-z]+\d*_\d+"', "<g", text)
    text = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", _page_font, text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1))


def _page_font(match: re.Match[str]) -> str:
    return "font-family: inherit" if match[1] else f"font: {match[2]}sans-serif"


def png(figure: Figure, title: str) -> Markup:
    """The figure as an `<img>` with embedded data, at the highest resolution below 500 kB."""
    from markupsafe import Markup

    data = b""
    for dpi in (144, 110, 84, 60):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
        data = buffer.getvalue()
        if len(data) <= _PNG_BYTES:
            break
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    width = round(100 * figure.get_figwidth())
    return Markup(f'<img alt="{html.escape(title)}" width="{width}" src="{source}">')
