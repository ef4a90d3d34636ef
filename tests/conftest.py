"""Shared by all tests: the folder of the real scans, and a fixed seed for each test."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("FARVOX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """Folder of a real dataset; the calling test skips, and says so, where it is absent."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"real scans '{name}' are not at {DATA} (set FARVOX_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random values do not depend on the tests that ran before; tests without torch do not wait for its import."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
