"""Predicting points, and coarse-to-fine segmentation, with a point network: milliseconds, Dice, samples, seconds.

    python benchmarks/points.py                     # phantoms, and a network trained on them for two minutes
    python benchmarks/points.py BUNDLE DATASET      # a trained one; validation scans of its fold if it is in a run

First 1,000 points by `Predictor.predict_points`, compared with the reference backend before anything is timed. Then
`point_stride="adaptive"` against strides of 1, 2 and 4: in turns in one process, scan by scan; the time of a scan is
the median of its repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from race import check
from rich.console import Console
from rich.table import Table

from farvox.data import LoadedCase, load_case, read_dataset
from farvox.errors import FarvoxError
from farvox.evaluation import evaluate_case
from farvox.io import Scan
from farvox.ops import sparse_conv
from farvox.prediction import PointStride, Predictor
from farvox.runs.schema import FoldIdentity
from farvox.synthetic import write_phantoms

POINTS, REPEATS = 1000, 50
STRIDES: tuple[PointStride, ...] = (1, 2, 4, "adaptive")
RECIPE = "obelisk-midl2018-augmented"


def train_on_phantoms(folder: Path, budget: str) -> tuple[Path, Path]:
    """(bundle, dataset) of a network that has learned from twelve phantoms for a while; four are left for testing."""
    dataset = write_phantoms(folder / "phantoms", training=16, testing=0)
    command = [sys.executable, "-m", "farvox", "train", str(dataset), "--recipe", RECIPE, "--folds", "4", "--fold", "0"]
    subprocess.run([*command, "--budget", budget, "--out", str(folder / "run")], check=True, stdout=subprocess.DEVNULL)
    return folder / "run" / "fold-0" / "bundle", dataset


def validation_cases(bundle: Path, dataset: Path, limit: int) -> list[LoadedCase]:
    """Labelled cases: of a bundle in a run those of its fold's validation, else the first ones."""
    dataset_of_cases = read_dataset(dataset)
    split = bundle.parent / "split.json"
    ids = FoldIdentity.read(split).validation_cases if split.is_file() else list(dataset_of_cases.cases_by_id)
    return [load_case(dataset_of_cases, dataset_of_cases.cases_by_id[name]) for name in ids[:limit]]


def latency(bundle: Path, case: LoadedCase) -> dict[str, float]:
    """Milliseconds for 1,000 points all over an open scan, median; and the largest error beside the reference."""
    predictor = Predictor.load(bundle)
    opened = predictor.prepare(as_scan(case))
    points = case.grid.unit_to_mm(np.random.default_rng(0).uniform(-1, 1, (POINTS, 3)))
    ours = torch.from_numpy(predictor.predict_points(opened, points).probabilities)
    with mock.patch("farvox.models.obelisk_dense.sparse_conv", partial(sparse_conv, backend="reference")):
        error = check(ours, torch.from_numpy(predictor.predict_points(opened, points).probabilities), 1e-4)
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        predictor.predict_points(opened, points)
        seconds.append(time.perf_counter() - began)
    return {"points": POINTS, "median_ms": 1e3 * statistics.median(seconds), "error": error}


def densities(bundle: Path, cases: Sequence[LoadedCase], repeats: int) -> list[dict[str, Any]]:
    """For each stride, means over the scans: Dice of the structures, fraction of voxels evaluated, seconds."""
    predictors = {stride: Predictor.load(bundle, point_stride=stride) for stride in STRIDES}
    table = predictors[1].labels
    lookup = np.zeros(max(table.values) + 1, np.uint8)
    lookup[list(table.values)] = np.arange(table.classes)
    predictors["adaptive"].segment(as_scan(cases[0]))  # compiles
    rows: dict[PointStride, list[tuple[float, float, float]]] = {stride: [] for stride in STRIDES}
    for case in cases:
        masks, seconds = {}, {stride: [] for stride in STRIDES}
        for _ in range(repeats):
            for stride, predictor in predictors.items():
                began = time.perf_counter()
                masks[stride] = predictor.segment(as_scan(case))
                seconds[stride].append(time.perf_counter() - began)
        for stride, predictor in predictors.items():
            figures = evaluate_case(lookup[masks[stride]], case.classes, case.grid, table, 1.0)
            fraction = predictor.samples.fraction if predictor.samples else float(stride) ** -3
            rows[stride].append((figures.mean.dice, fraction, statistics.median(seconds[stride])))
    means = {stride: np.mean(rows[stride], 0).tolist() for stride in STRIDES}
    return [
        {
            "point_stride": s,
            "dice": dice,
            "lost": 100 * (means[1][0] - dice),
            "n_evaluated_fraction": fraction,
            "seconds": seconds,
        }
        for s, (dice, fraction, seconds) in means.items()
    ]


def as_scan(case: LoadedCase) -> Scan:
    """The image of a case."""
    return Scan(case.image, case.grid, Path(case.id))


def show(found: dict[str, Any]) -> None:
    """Print both tables."""
    measured = found["latency"]
    print(f"{measured['points']} points: {measured['median_ms']:.1f} ms (off the reference by {measured['error']:.0e})")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("point_stride", "Dice", "points lost", "voxels evaluated", "seconds", "times as fast as 1"):
        table.add_column(title, justify="left" if title == "point_stride" else "right")
    for row in found["densities"]:
        faster = found["densities"][0]["seconds"] / row["seconds"]
        figures = (
            f"{row['dice']:.4f}",
            f"{row['lost']:+.2f}",
            f"{row['n_evaluated_fraction']:.1%}",
            f"{row['seconds']:.2f}",
        )
        table.add_row(str(row["point_stride"]), *figures, f"{faster:.1f}")
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--cases", type=int, default=4, help="scans at most")
    parser.add_argument("--repeats", type=int, default=3, help="times each scan is segmented in each way")
    parser.add_argument("--budget", default="2m", help="training time where no bundle is given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if (options.bundle is None) != (options.dataset is None):
        parser.error("a bundle and a dataset, or neither")
    with tempfile.TemporaryDirectory() as name:
        bundle, dataset = options.bundle, options.dataset
        if bundle is None:
            bundle, dataset = train_on_phantoms(Path(name), options.budget)
        try:
            cases = validation_cases(bundle, dataset, options.cases)
            found = {"latency": latency(bundle, cases[0]), "densities": densities(bundle, cases, options.repeats)}
        except FarvoxError as error:
            sys.exit(f"error: {error}")
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
