"""Array aliases used in signatures."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

Shape = tuple[int, int, int]
"""Voxels along I, J, K."""

PathLike = str | os.PathLike[str]
"""A path as text or as a `pathlib.Path`."""
