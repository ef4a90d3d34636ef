"""What all figures share: an empty figure, style_axes axes, and the ways into a page that must load nothing."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_COLOUR = "#010203"
"""Stands for the page's text colour, which differs in light and dark; replaced on the way out."""

PNG_BYTES = 500_000


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of `width` × `height` inches with the Agg canvas and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, grid: str) -> None:
    """Leave an axes its left and bottom line and a faint grid along `grid` ("x", "y" or "both")."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=TEXT_COLOUR, alpha=0.5)
    axes.grid(axis=grid, color=TEXT_COLOUR, alpha=0.13, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=3, labelsize=10)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set(color=TEXT_COLOUR, fontsize=11)


def svg(figure: Figure, title: str) -> str:
    """The figure as an inline `<svg>` in the page's own font and text colour; `title` is read to the blind."""
    import matplotlib

    buffer = io.StringIO()
    # Real text keeps the file small and searchable; the salt keeps ids apart between figures and equal between runs.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=blank)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[A-Za-z]+\d*_\d+"', "<g", text)
    text = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", _page_font, text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def _page_font(match: re.Match[str]) -> str:
    return "font-family: inherit" if match[1] else f"font: {match[2]}sans-serif"


def png(figure: Figure, title: str, limit: int = PNG_BYTES) -> str:
    """The figure as an `<img>` that carries its own bytes, at the finest resolution that stays below `limit` bytes."""
    data = b""
    for dpi in (144, 110, 84, 60):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
        data = buffer.getvalue()
        if len(data) <= limit:
            break
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{html.escape(title)}" width="{round(100 * figure.get_figwidth())}" src="{source}">'
