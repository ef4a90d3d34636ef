"""One colour a label, the same in every figure and legend of a report."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeVar

_Key = TypeVar("_Key", int, str)

FEW = ("#e4572e", "#56b4e9", "#00a878", "#f2c230", "#cc79a7", "#8c6ff0", "#b5651d")
"""After Okabe and Ito: told apart with the common colour deficiencies, visible on grey, white and black."""


def label_colours(labels: Sequence[_Key]) -> dict[_Key, str]:
    """Label value → hex colour: a colour-blind-aware set for up to seven labels, evenly spaced hues beyond.

    Neighbours in the table lie far apart in hue, since neighbouring values are often neighbouring structures.
    """
    if len(labels) <= len(FEW):
        return dict(zip(labels, FEW, strict=False))
    return {label: _hue(index, len(labels)) for index, label in enumerate(labels)}


def _hue(index: int, count: int) -> str:
    # Multiples of the golden ratio, ranked, visit each of the evenly spaced hues once.
    turns = [(i * 0.618034) % 1 for i in range(count)]
    hue = sorted(range(count), key=turns.__getitem__).index(index) / count
    red, green, blue = colorsys.hls_to_rgb(hue, (0.62, 0.48, 0.72)[index % 3], 0.75)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
