"""Compares progressive refinement with an exhaustive search: error, samples and time on validation scans.

    python benchmarks/landmarks.py [--run RUN DATASET]... [--limit 20] [--seeds 3] [--json FILE]

RUN is the folder of a training run whose network supports points. The validation scans of its folds are searched, and
the reference is the centroid of each label in the reference mask. Without --run, a network is trained on phantoms
first, which takes two minutes of processor time. Both methods process each scan in turn. Errors are in voxels of the
scan and in mm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farvox.data import Dataset, read_dataset
from farvox.data.folds import Fold
from farvox.data.load import load_case
from farvox.io.landmarks import Point
from farvox.localization import Landmarks, LocateOptions
from farvox.localization.files import LocateResult, locate_cases, summarise
from farvox.localization.reference import References
from farvox.prediction import Predictor
from farvox.progress import NullProgress
from farvox.recipes import load_recipe
from farvox.runs.schema import FoldIdentity
from farvox.synthetic import write_phantoms
from farvox.training.api import temporary_cache, train_folds

TARGET = "at most 5 % of the samples, and a median error at most 1 voxel above exhaustive"


@dataclass(frozen=True)
class Row:
    """Results of one run; "sampled" is progressive refinement over all seeds."""

    run: str
    scans: int
    structures: int
    exhaustive_voxels: float
    sampled_voxels: float
    exhaustive_mm: float
    sampled_mm: float
    difference_voxels: float
    """Median distance between the two results."""
    exhaustive_missed: int
    sampled_missed: float
    """False negatives, mean over seeds."""
    sample_fraction: float
    exhaustive_seconds: float
    sampled_seconds: float

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.sample_fraction <= 0.05 and self.sampled_voxels <= self.exhaustive_voxels + 1


def phantom_run(folder: Path) -> tuple[Path, Path]:
    """Train on synthetic abdomens for two minutes; returns the paths of the run and of the dataset."""
    root = write_phantoms(folder / "phantoms", training=16, testing=0)
    dataset = read_dataset(root)
    ids = [case.id for case in dataset.cases]
    recipe = load_recipe("obelisk-dense", ['train.budget="120s"'])
    fold, run, progress = Fold("0", tuple(ids[:12]), tuple(ids[12:])), folder / "run", NullProgress()
    with temporary_cache(run, dataset, progress) as cache:
        train_folds(dataset, [fold], recipe, run, "cpu", cache=cache, progress=progress)
    return folder / "run", root


def reference_centroids(dataset: Dataset, ids: list[str]) -> References:
    """Centroid of each label of each case, mm."""
    references: dict[str, dict[str, Point]] = {}
    for id in ids:
        case = load_case(dataset, dataset.cases_by_id[id])
        assert case.classes is not None
        references[id] = {}
        for index, _, name in dataset.labels.foreground:
            voxels = np.argwhere(case.classes == index)
            if len(voxels):
                x, y, z = case.grid.voxel_to_mm(voxels.mean(0)[None])[0].tolist()
                references[id][name] = (x, y, z)
    return references


def measure(run: Path, root: Path, limit: int, seeds: int) -> Row:
    """Locate landmarks in the validation scans of each fold of a run, exhaustively and with few samples."""
    dataset = read_dataset(root)
    exhaustive: list[LocateResult] = []
    sampled: list[LocateResult] = []
    differences: list[float] = []
    methods = [LocateOptions(exhaustive=True), *(LocateOptions(seed=seed) for seed in range(seeds))]
    for split in sorted(run.glob("fold-*/split.json")):
        ids = FoldIdentity.read(split).validation_cases[:limit]
        predictor = Predictor.load(split.parent / "bundle", device="cpu")
        references = reference_centroids(dataset, ids)
        for id in ids:
            cases = [dataset.cases_by_id[id]]
            results = [next(locate_cases(predictor, cases, way, references, NullProgress())) for way in methods]
            exhaustive.append(results[0])
            sampled += results[1:]
            grid = load_case(dataset, cases[0]).grid
            for other in results[1:]:
                for a, b in zip(_landmarks(results[0]), _landmarks(other), strict=True):
                    if a.point and b.point:
                        pair = grid.mm_to_voxel(np.array((a.point, b.point)))
                        differences.append(float(np.linalg.norm(pair[1] - pair[0])))
    return Row(
        run=run.name,
        scans=len(exhaustive),
        structures=len(_errors(exhaustive, "mm")),
        exhaustive_voxels=float(np.median(_errors(exhaustive, "voxels"))),
        sampled_voxels=float(np.median(_errors(sampled, "voxels"))),
        exhaustive_mm=float(np.median(_errors(exhaustive, "mm"))),
        sampled_mm=float(np.median(_errors(sampled, "mm"))),
        difference_voxels=float(np.median(differences)),
        exhaustive_missed=_missed(exhaustive),
        sampled_missed=_missed(sampled) / seeds,
        sample_fraction=sum(_landmarks(r).n_samples for r in sampled) / sum(_landmarks(r).n_voxels for r in sampled),
        exhaustive_seconds=float(np.median([r.seconds for r in exhaustive])),
        sampled_seconds=float(np.median([r.seconds for r in sampled])),
    )


def _landmarks(result: LocateResult) -> Landmarks:
    if result.landmarks is None:
        raise SystemExit(result.error)
    return result.landmarks


def _errors(results: list[LocateResult], unit: str) -> list[float]:
    values = [getattr(error, unit) for result in results for error in result.point_errors or ()]
    return [value for value in values if value is not None]


def _missed(results: list[LocateResult]) -> int:
    summary = summarise(results)
    return summary.all.false_negatives if summary else 0


def show(rows: list[Row]) -> None:
    """Print the table; "exh." is the exhaustive search."""
    head = ("run", "scans", "points", "exh.", "sampled", "exh.", "sampled", "difference", "missed", "samples")
    lines: list[tuple[str, ...]] = [
        (*head, "exh.", "sampled", "target"),
        ("", "", "", "voxels", "voxels", "mm", "mm", "voxels", "each", "", "s", "s", ""),
    ]
    for row in rows:
        errors = (row.exhaustive_voxels, row.sampled_voxels, row.exhaustive_mm, row.sampled_mm, row.difference_voxels)
        lines.append(
            (
                row.run,
                str(row.scans),
                str(row.structures),
                *(f"{value:.2f}" for value in errors),
                f"{row.exhaustive_missed}, {row.sampled_missed:.1f}",
                f"{row.sample_fraction:.1%}",
                f"{row.exhaustive_seconds:.2f}",
                f"{row.sampled_seconds:.2f}",
                "yes" if row.reached else "no",
            )
        )
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    for line in lines:
        rest = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        print(line[0].ljust(widths[0]), *rest, sep="  ")
    print(f"target: {TARGET}")


def main() -> None:
    """Measure each --run, or one trained on phantoms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs=2, action="append", type=Path, metavar=("RUN", "DATASET"))
    parser.add_argument("--limit", type=int, default=20, help="scans of each fold")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs: list[Any] = options.run or [phantom_run(Path(folder))]
        rows = [measure(run, root, options.limit, options.seeds) for run, root in pairs]
    show(rows)
    if options.json:
        options.json.write_text(
            json.dumps([asdict(row) | {"reached": row.reached} for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
