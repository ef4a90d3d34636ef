"""From a trained network and a scan to points in mm: one for each landmark, or for each label its centroid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farvox.errors import UsageError
from farvox.geometry import Grid
from farvox.io.landmarks import Point
from farvox.io.scan import Scan
from farvox.localization.estimate import estimate_centroid
from farvox.localization.search import WeightedSamples, sample_progressively
from farvox.models import list_models, model_info
from farvox.prediction import Predictor, PreparedScan
from farvox.prediction.points import supports_points
from farvox.types import Array, FloatArray

SHARE = 0.04
"""Samples for each voxel of network space, unless a number is given."""
_LEAST_SAMPLES = 50
"""In a step."""
_AT_ONCE = 1 << 18
_MIN_PROBABILITY = 0.01
"""Probability below which a voxel is forgotten when all are asked."""


@dataclass(frozen=True)
class LocateOptions:
    """How a scan is searched.

    Args:
        dense: Ask at every voxel of network space instead of step by step.
        steps: Rounds of asking, the first over the whole scan, each further one around what the last ones found.
        samples: Points in all rounds together; None takes `SHARE` of the voxels of network space.
        seed: Of the draw; the same seed gives the same points.
        min_confidence: Confidence below which a structure counts as not found, 0 to 1.
    """

    dense: bool = False
    steps: int = 6
    samples: int | None = None
    seed: int = 0
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps", allowed="1 or more; 6 are usual")
        if self.samples is not None and self.samples < _LEAST_SAMPLES * self.steps:
            raise UsageError(
                f"{self.samples} samples in {self.steps} steps", allowed=f"{_LEAST_SAMPLES * self.steps} or more"
            )
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"a min_confidence confidence of {self.min_confidence:g}", allowed="0 to 1")


@dataclass(frozen=True)
class Place:
    """Where one structure was found.

    Args:
        value: Its label value.
        name: Its name.
        point: Centroid of its probability, mm; None when not found.
        confidence: Mean probability over the mass found, 0 to 1.
    """

    value: int
    name: str
    point: Point | None
    confidence: float


@dataclass(frozen=True)
class Location:
    """What was found in one scan.

    Args:
        places: One for each label, background left out.
        samples: Points at which each network was asked.
        voxels: Voxels of network space: what asking densely takes.
    """

    places: tuple[Place, ...]
    samples: int
    voxels: int

    @property
    def share(self) -> float:
        """Samples over voxels."""
        return self.samples / self.voxels


def locate(
    predictor: Predictor,
    scan: str | Path | Scan | Array | PreparedScan,
    settings: LocateOptions | None = None,
    *,
    affine: FloatArray | None = None,
    progress: Callable[[float], None] | None = None,
) -> Location:
    """Find each label's centroid in a scan by progressive refinement (Heinrich et al. 2018, OBELISK, section 2.1).

    A first, even set of points covers the scan; each further step draws around the places of high probability found so
    far, as wide as the mass found there, so that the spread shrinks for a landmark and stays for an organ.
    All points of all steps enter the answer, each weighted by the volume it stands for. With `dense` the same
    estimate is made from every voxel.

    Args:
        predictor: Networks that answer points; with `dense`, any.
        scan: As for `Predictor.segment`, or what `Predictor.open` gave.
        settings: How to search.
        affine: For an array, as for `Predictor.segment`.
        progress: Told the finished share, 0 to 1.

    Raises:
        DataError: The scan cannot be read, or has the wrong number of channels.
        UsageError: Networks that cannot be asked at points, without `dense`.
    """
    settings = settings or LocateOptions()
    if not settings.dense:
        require_point_network(predictor)
    opened = scan if isinstance(scan, PreparedScan) else predictor.open(scan, affine)
    spaces = [space.grid for space in opened.spaces]
    finest = max(spaces, key=lambda grid: grid.n_voxels)
    asked = 0

    def ask(points: FloatArray) -> FloatArray:
        nonlocal asked
        asked += len(points)
        if progress:
            progress(min(1.0, asked / total))
        return predictor.at(opened, points).probabilities

    if settings.dense:
        total = finest.n_voxels
        alone = all(supports_points(bundle) for bundle in predictor.bundles)
        drawn = _ask_everywhere(ask, finest, _AT_ONCE if alone else total)
    else:
        total = settings.samples or max(round(SHARE * finest.n_voxels), _LEAST_SAMPLES * settings.steps)
        spacing = float(finest.voxel_ml * 1000) ** (1 / 3)
        drawn = sample_progressively(
            ask, opened.scan.grid, spacing, steps=settings.steps, samples=total, seed=settings.seed
        )
    places = []
    for index, value, name in predictor.labels.foreground:
        point, confidence = None, 0.0
        if drawn.probabilities[:, index].any():
            mass = estimate_centroid(drawn.points_mm, drawn.probabilities[:, index], drawn.volumes)
            confidence = mass.mean_probability
            if confidence >= settings.min_confidence:
                x, y, z = mass.centre.tolist()
                point = (x, y, z)
        places.append(Place(value, name, point, confidence))
    return Location(tuple(places), asked, finest.n_voxels)


def require_point_network(predictor: Predictor) -> None:
    """Raise a UsageError that names the networks that answer points, unless all of the predictor's do."""
    for bundle in predictor.bundles:
        if not supports_points(bundle):
            known = [name for name in list_models() if model_info(name).points]
            name = bundle.manifest.model.name
            found = f"{bundle.path} holds {name}" + (" trained on patches" if name in known else "")
            raise UsageError(
                f"{found}, which cannot be asked at single points",
                allowed=f"{', '.join(known)}, trained on whole scans",
                hint="add --dense, which asks at every voxel, or train such a network",
            )


def _ask_everywhere(ask: Callable[[FloatArray], FloatArray], grid: Grid, at_once: int) -> WeightedSamples:
    """Answers at the voxel centres of a grid, those without any faint trace of a structure left out."""
    points, probabilities = [], []
    for part in _centres(grid, at_once):
        answers = ask(part)
        traces = answers[:, 1:].max(1) >= _MIN_PROBABILITY
        points.append(part[traces])
        probabilities.append(answers[traces])
    kept = np.concatenate(points)
    return WeightedSamples(kept, np.concatenate(probabilities), np.full(len(kept), grid.voxel_ml * 1000))


def _centres(grid: Grid, at_once: int) -> Iterator[FloatArray]:
    for start in range(0, grid.n_voxels, at_once):
        flat = np.arange(start, min(start + at_once, grid.n_voxels))
        yield grid.voxel_to_mm(np.stack(np.unravel_index(flat, grid.shape), -1))
