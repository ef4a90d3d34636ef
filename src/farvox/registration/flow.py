"""Directions as colours: hue tells where a displacement points, saturation how far."""

from __future__ import annotations

import numpy as np

from farvox.types import FloatArray


def flow_colours(right: FloatArray, up: FloatArray, most: float) -> FloatArray:
    """Colour displacements in a plane.

    Rightward is red, then counter-clockwise yellow, green, cyan (leftward), blue and magenta; none is white.

    Args:
        right: Rightward part as drawn, any shape, any unit.
        up: Upward part, same shape.
        most: Length from which on colours are fully saturated.

    Returns:
        The shape of `right` and 3: red, green and blue, 0 to 1.
    """
    turn = np.arctan2(up, right) / (2 * np.pi)
    saturation = np.clip(np.hypot(right, up) / max(most, 1e-12), 0, 1)
    # Red, green and blue stand a third of a turn apart; each is full near its own hue and gone opposite.
    shares = [np.clip(np.abs((turn - third) % 1 * 6 - 3) - 1, 0, 1) for third in (0, 1 / 3, 2 / 3)]
    out: FloatArray = 1 - saturation[..., None] * (1 - np.stack(shares, -1))
    return out


def colour_wheel(pixels: int = 101) -> FloatArray:
    """(pixels, pixels, 4) legend of `flow_colours`, first row at the bottom, clear outside the circle."""
    line = np.linspace(-1, 1, pixels)
    right, up = np.meshgrid(line, line)
    inside = np.hypot(right, up) <= 1
    return np.concatenate((flow_colours(right, up, 1.0), inside[..., None].astype(float)), -1)
