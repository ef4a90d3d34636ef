"""Shared by all tests: where the real scans are, and thread settings that keep runs repeatable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("FARVOX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """Folder of a real dataset; the calling test skips, and says so, where it is absent."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"real scans '{name}' are not at {DATA} (set FARVOX_TEST_DATA)")
    return folder
