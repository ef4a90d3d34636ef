"""The frame of every page: one HTML file that carries its style and loads nothing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files


def whole(title: str, body: Sequence[str]) -> str:
    """A complete HTML document.

    Args:
        title: Plain text.
        body: Ready HTML, piece by piece.
    """
    style = files("farvox.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def note(text: str) -> str:
    """A remark in ready HTML, set apart from the text."""
    return f'<p class="note">{text}</p>'
