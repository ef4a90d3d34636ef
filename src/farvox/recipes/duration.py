"""Times as people write them."""

from __future__ import annotations

import re

from farvox.errors import RecipeError


def parse_duration(text: str) -> float:
    """'45s', '8m', '1.5h' → seconds, above zero.

    Raises:
        RecipeError: Not such a text, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh])\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise RecipeError(f"budget '{text}'", allowed="a time above zero such as 45s, 8m or 1.5h")
    return seconds
