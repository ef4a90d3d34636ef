"""Asking a point network at points, and from coarse to fine: milliseconds, Dice, samples and seconds.

    python benchmarks/points.py                     # phantoms, and a network trained on them for two minutes
    python benchmarks/points.py BUNDLE DATASET      # a trained one; scans its fold was not trained on, where it says so

First 1,000 points by `Predictor.at`, compared with the reference backend before anything is timed. Then
`sampling="adaptive"` against strides of 1, 2 and 4: all take turns in one process, scan by scan; a scan's time is the
median of its repeats.
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
from farvox.prediction import Predictor, Sampling
from farvox.runs.schema import FoldIdentity
from farvox.synthetic import write_phantoms

POINTS, QUESTIONS = 1000, 50
SAMPLINGS: tuple[Sampling, ...] = (1, 2, 4, "adaptive")
RECIPE = "obelisk-midl2018-augmented"


def train_on_phantoms(folder: Path, budget: str) -> tuple[Path, Path]:
    """(bundle, dataset) of a network that has learned from twelve phantoms for a while; four are left for testing."""
    dataset = write_phantoms(folder / "phantoms", training=16, testing=0)
    command = [sys.executable, "-m", "farvox", "train", str(dataset), "--recipe", RECIPE, "--folds", "4", "--fold", "0"]
    subprocess.run([*command, "--budget", budget, "--out", str(folder / "run")], check=True, stdout=subprocess.DEVNULL)
    return folder / "run" / "fold-0" / "bundle", dataset


def validation_cases(bundle: Path, dataset: Path, limit: int) -> list[LoadedCase]:
    """Labelled cases: of a bundle that lies in a run those of its fold's validation, else the first ones."""
    known = read_dataset(dataset)
    split = bundle.parent / "split.json"
    ids = FoldIdentity.read(split).validation_cases if split.is_file() else list(known.cases_by_id)
    return [load_case(known, known.cases_by_id[name]) for name in ids[:limit]]


def latency(bundle: Path, case: LoadedCase) -> dict[str, float]:
    """Milliseconds for 1,000 points all over an open scan, median; and the largest error beside the reference."""
    predictor = Predictor.load(bundle)
    opened = predictor.prepare(as_scan(case))
    points = case.grid.unit_to_mm(np.random.default_rng(0).uniform(-1, 1, (POINTS, 3)))
    ours = torch.from_numpy(predictor.predict_points(opened, points).probabilities)
    with mock.patch("farvox.models.obelisk_dense.sparse_conv", partial(sparse_conv, backend="reference")):
        error = check(ours, torch.from_numpy(predictor.predict_points(opened, points).probabilities), 1e-4)
    seconds = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        predictor.predict_points(opened, points)
        seconds.append(time.perf_counter() - began)
    return {"points": POINTS, "median_ms": 1e3 * statistics.median(seconds), "error": error}


def densities(bundle: Path, cases: Sequence[LoadedCase], repeats: int) -> list[dict[str, Any]]:
    """For each sampling, means over the scans: Dice of the structures, share of voxels asked, seconds."""
    predictors = {sampling: Predictor.load(bundle, sampling=sampling) for sampling in SAMPLINGS}
    table = predictors[1].labels
    lookup = np.zeros(max(table.values) + 1, np.uint8)
    lookup[list(table.values)] = np.arange(table.classes)
    predictors["adaptive"].segment(as_scan(cases[0]))  # compiles
    rows: dict[Sampling, list[tuple[float, float, float]]] = {sampling: [] for sampling in SAMPLINGS}
    for case in cases:
        masks, seconds = {}, {sampling: [] for sampling in SAMPLINGS}
        for _ in range(repeats):
            for sampling, predictor in predictors.items():
                began = time.perf_counter()
                masks[sampling] = predictor.segment(as_scan(case))
                seconds[sampling].append(time.perf_counter() - began)
        for sampling, predictor in predictors.items():
            figures = evaluate_case(lookup[masks[sampling]], case.classes, case.grid, table, 1.0)
            share = predictor.samples.share if predictor.samples else float(sampling) ** -3
            rows[sampling].append((figures.mean.dice, share, statistics.median(seconds[sampling])))
    means = {sampling: np.mean(rows[sampling], 0).tolist() for sampling in SAMPLINGS}
    return [
        {"sampling": s, "dice": dice, "lost": 100 * (means[1][0] - dice), "asked": share, "seconds": seconds}
        for s, (dice, share, seconds) in means.items()
    ]


def as_scan(case: LoadedCase) -> Scan:
    """The image of a case."""
    return Scan(case.image, case.grid, Path(case.id))


def show(found: dict[str, Any]) -> None:
    """Print both tables."""
    asked = found["latency"]
    print(f"{asked['points']} points: {asked['median_ms']:.1f} ms (off the reference by {asked['error']:.0e})")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("sampling", "Dice", "points lost", "voxels asked", "seconds", "times as fast as 1"):
        table.add_column(title, justify="left" if title == "sampling" else "right")
    for row in found["densities"]:
        faster = found["densities"][0]["seconds"] / row["seconds"]
        figures = f"{row['dice']:.4f}", f"{row['lost']:+.2f}", f"{row['asked']:.1%}", f"{row['seconds']:.2f}"
        table.add_row(str(row["sampling"]), *figures, f"{faster:.1f}")
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
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
