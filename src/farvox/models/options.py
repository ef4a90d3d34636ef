"""Checks of options that several networks take."""

from __future__ import annotations

from farvox.errors import ModelError


def validate_dropout(dropout: object, network: str) -> float:
    """A share that is dropped in training.

    Raises:
        ModelError: Not a number from 0 to below 1.
    """
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ModelError(f"dropout={dropout!r} for '{network}'", allowed="0 to below 1")
    return float(dropout)
