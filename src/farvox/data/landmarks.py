"""Landmarks as the labels of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from farvox.data.dataset import CasePaths, Dataset, LandmarkSpheres
from farvox.errors import DataError, FarvoxError, UsageError, suggest
from farvox.geometry import Grid
from farvox.io import read_grid
from farvox.io.landmarks import LandmarkTable
from farvox.labels import LabelTable

_LEAST_VOXELS = 1.5
_FRACTION_OF_SIZE = 0.02


def with_landmarks(dataset: Dataset, landmarks: LandmarkTable, landmark_radius_mm: float | None = None) -> Dataset:
    """The same scans with landmarks as labels: label n is a sphere around the n-th landmark.

    A case without any of the landmarks becomes one without label. A case that lacks some is taken as one where they
    are absent.

    Args:
        dataset: The scans; its labels are ignored.
        landmarks: As from `read_landmarks`.
        landmark_radius_mm: Radius of the spheres. By default a fiftieth of the scans' size (geometric mean of the
            three sides) and at least 1.5 times their coarsest voxel spacing, each the median over the scans.

    Raises:
        DataError: A case that no scan has as its id.
        UsageError: A radius that is not above 0.
    """
    if landmark_radius_mm is not None and not (math.isfinite(landmark_radius_mm) and landmark_radius_mm > 0):
        raise UsageError(f"a radius of {landmark_radius_mm:g} mm", allowed="above 0 mm")
    scans = {case.id: case for case in (*dataset.cases, *dataset.unlabelled) if case.images}
    unknown = sorted(set(landmarks.points) - set(scans))
    if unknown:
        others = f" and of {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{landmarks.path.name} holds landmarks of '{unknown[0]}'{others}, but no scan has this id",
            allowed="ids of the dataset's cases (for a pattern, the text that its * match) or names of their files",
            hint=_nearest_case(unknown[0], list(scans)),
        )
    values = {name: value for value, name in enumerate(landmarks.names, start=1)}
    marked = [scans[id] for id in sorted(scans) if landmarks.points.get(id)]
    radius, notes = _radius(marked, landmark_radius_mm)
    cases = []
    for case in marked:
        centres = tuple((values[name], name, point) for name, point in landmarks.points[case.id].items())
        cases.append(CasePaths(case.id, case.images, LandmarkSpheres(centres, radius, landmarks.path)))
    bare = tuple(CasePaths(id, scans[id].images) for id in sorted(scans) if not landmarks.points.get(id))
    return replace(
        dataset,
        cases=tuple(cases),
        unlabelled=bare,
        labels=LabelTable.from_mapping({value: name for name, value in values.items()}),
        notes=(f"labels are spheres of {radius:g} mm around the landmarks of {landmarks.path}", *notes),
        landmark_radius_mm=radius,
    )


def default_radius_mm(grids: Iterable[Grid]) -> float:
    """Radius of spheres that suits scans on these grids, mm, to two digits; see `with_landmarks`."""
    every = list(grids)
    sizes = [np.prod(np.array(grid.shape) * grid.spacing) ** (1 / 3) for grid in every]
    coarsest = [grid.spacing.max() for grid in every]
    radius = max(_FRACTION_OF_SIZE * float(np.median(sizes)), _LEAST_VOXELS * float(np.median(coarsest)))
    return float(f"{radius:.2g}")


def _radius(cases: Sequence[CasePaths], requested: float | None) -> tuple[float, list[str]]:
    """The radius, and a note where it is small for the scans' voxels; scans that cannot be read are judged later."""
    grids = []
    for case in cases:
        with suppress(FarvoxError):
            grids.append(read_grid(case.images[0], case=case.id))
    if not grids:
        raise DataError("none of the scans with landmarks can be read", hint="check the scans")
    if requested is None:
        return default_radius_mm(grids), []
    coarsest = float(np.median([grid.spacing.max() for grid in grids]))
    if requested >= _LEAST_VOXELS * coarsest:
        return requested, []
    return requested, [
        f"a radius of {requested:g} mm is below 1.5 voxels ({coarsest:g} mm apart): spheres of very few voxels"
    ]


def _nearest_case(name: str, known: Sequence[str]) -> str:
    """The closest id, or the first few; a dataset may hold thousands."""
    phrase = suggest(name, known)
    return phrase if phrase.startswith("did") or len(known) <= 6 else f"known: {', '.join(known[:6])}, …"
