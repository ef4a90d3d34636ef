"""Progressive refinement against asking at every voxel: error, samples and time on scans a network has not seen.

    python benchmarks/landmarks.py [--run RUN DATASET]... [--limit 20] [--seeds 3] [--json FILE]

RUN is the folder of a training whose network answers points; the validation scans of its folds are searched, each
label's centroid in the reference mask being the truth. Without any, a network is trained on phantoms first (two minutes
of processor time). Both ways see the same scans in turn; errors are in voxels of the scan and in mm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farvox.cli.train import train_folds
from farvox.data import Dataset, read_dataset
from farvox.data.folds import Fold
from farvox.data.load import load_case
from farvox.io.landmarks import Point
from farvox.localization import LocateOptions, Location
from farvox.localization.files import ScanResult, locate_scans
from farvox.localization.reference import References
from farvox.prediction import Predictor
from farvox.recipes import load_recipe
from farvox.runs.schema import FoldIdentity
from farvox.synthetic import write_phantoms

AIM = "at most 5 % of the samples, median error at most 1 voxel above dense"


@dataclass(frozen=True)
class Row:
    """Figures of one run; "few" is progressive refinement over all seeds."""

    run: str
    scans: int
    structures: int
    dense_voxels: float
    few_voxels: float
    dense_mm: float
    few_mm: float
    apart_voxels: float
    """Median distance of the two answers."""
    dense_missed: int
    few_missed: float
    """Structures that are there and were not found, a seed."""
    share: float
    dense_seconds: float
    few_seconds: float

    @property
    def reached(self) -> bool:
        """Whether the aim was met."""
        return self.share <= 0.05 and self.few_voxels <= self.dense_voxels + 1


def phantom_run(folder: Path) -> tuple[Path, Path]:
    """Train on generated abdomens for two minutes; (run, dataset)."""
    root = write_phantoms(folder / "phantoms", training=16, testing=0)
    dataset = read_dataset(root)
    ids = [case.id for case in dataset.cases]
    recipe = load_recipe("obelisk-dense", ['train.budget="120s"'])
    train_folds(
        dataset, [Fold("0", tuple(ids[:12]), tuple(ids[12:]))], recipe, folder / "run", device="cpu", quiet=True
    )
    return folder / "run", root


def known_points(dataset: Dataset, ids: list[str]) -> References:
    """Centroid of each label of each case, mm."""
    known: dict[str, dict[str, Point]] = {}
    for id in ids:
        case = load_case(dataset, dataset.cases_by_id[id])
        assert case.classes is not None
        known[id] = {}
        for index, _, name in dataset.labels.foreground:
            voxels = np.argwhere(case.classes == index)
            if len(voxels):
                x, y, z = case.grid.voxel_to_mm(voxels.mean(0)[None])[0].tolist()
                known[id][name] = (x, y, z)
    return known


def measure(run: Path, root: Path, limit: int, seeds: int) -> Row:
    """Locate in the validation scans of every fold of a run, densely and with few samples."""
    dataset = read_dataset(root)
    dense: list[ScanResult] = []
    few: list[ScanResult] = []
    apart: list[float] = []
    for split in sorted(run.glob("fold-*/split.json")):
        ids = FoldIdentity.read(split).validation_cases[:limit]
        predictor = Predictor.load(split.parent / "bundle", device="cpu")
        known = known_points(dataset, ids)
        for id in ids:
            scans = [dataset.cases_by_id[id]]
            ways = [LocateOptions(dense=True), *(LocateOptions(seed=seed) for seed in range(seeds))]
            results = [next(locate_scans(predictor, scans, way, known)) for way in ways]
            dense.append(results[0])
            few += results[1:]
            grid = load_case(dataset, scans[0]).grid
            for other in results[1:]:
                for a, b in zip(_found(results[0]).places, _found(other).places, strict=True):
                    if a.point and b.point:
                        apart.append(
                            float(np.linalg.norm(np.diff(grid.mm_to_voxel(np.array((a.point, b.point))), axis=0)))
                        )
    return Row(
        run=run.name,
        scans=len(dense),
        structures=len(_errors(dense, "mm")),
        dense_voxels=float(np.median(_errors(dense, "voxels"))),
        few_voxels=float(np.median(_errors(few, "voxels"))),
        dense_mm=float(np.median(_errors(dense, "mm"))),
        few_mm=float(np.median(_errors(few, "mm"))),
        apart_voxels=float(np.median(apart)),
        dense_missed=_missed(dense),
        few_missed=_missed(few) / seeds,
        share=sum(_found(r).samples for r in few) / sum(_found(r).voxels for r in few),
        dense_seconds=float(np.median([r.seconds for r in dense])),
        few_seconds=float(np.median([r.seconds for r in few])),
    )


def _found(result: ScanResult) -> Location:
    if result.location is None:
        raise SystemExit(result.problem)
    return result.location


def _errors(results: list[ScanResult], unit: str) -> list[float]:
    found = [getattr(error, unit) for result in results for error in result.errors or ()]
    return [value for value in found if value is not None]


def _missed(results: list[ScanResult]) -> int:
    pairs = [pair for r in results for pair in zip(_found(r).places, r.errors or (), strict=True)]
    return sum(error.known is not None and place.point is None for place, error in pairs)


def show(rows: list[Row]) -> None:
    """Print the table."""
    head = (
        "run",
        "scans",
        "points",
        "dense",
        "few",
        "dense",
        "few",
        "apart",
        "false_negatives",
        "share",
        "dense",
        "few",
        "aim",
    )
    units = ("", "", "", "voxels", "voxels", "mm", "mm", "voxels", "of each", "", "s", "s", "")
    lines = [head, units]
    for row in rows:
        figures = (row.dense_voxels, row.few_voxels, row.dense_mm, row.few_mm, row.apart_voxels)
        lines.append(
            (
                row.run,
                str(row.scans),
                str(row.structures),
                *(f"{value:.2f}" for value in figures),
                f"{row.dense_missed}, {row.few_missed:.1f}",
                f"{row.share:.1%}",
                f"{row.dense_seconds:.2f}",
                f"{row.few_seconds:.2f}",
                "yes" if row.reached else "no",
            )
        )
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    for line in lines:
        rest = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        print(line[0].ljust(widths[0]), *rest, sep="  ")
    print(f"aim: {AIM}")


def main() -> None:
    """Measure every run named, or one trained here."""
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
        options.json.write_text(json.dumps([asdict(row) | {"reached": row.reached} for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
