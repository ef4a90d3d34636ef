"""`farvox locate`: landmarks and centroids of structures as points in mm, from few samples of a scan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption

_PATHS_HELP = "Bundle folders, whose probabilities are averaged; then scans: files, DICOM folders or folders of scans."
_PATHS = typer.Argument(metavar="BUNDLE... SCAN...", help=_PATHS_HELP, show_default=False)
_OUT = typer.Option("--out", help="CSV file for the points, in mm (RAS+).")
_REFERENCE = typer.Option("--reference", help="Masks (file or folder) or a CSV file of points, to compute the errors.")
_EXHAUSTIVE = typer.Option("--exhaustive", help="Evaluate every voxel; works with any network.")
_ROUNDS = typer.Option("--rounds", help="Rounds of sampling; each concentrates more on likely positions.")
_SAMPLES = typer.Option("--samples", help="Points in all rounds together (default: 4 % of the voxels).")
_SEED = typer.Option("--seed", min=0, help="Seed of the sampling.")
_MIN_CONFIDENCE = typer.Option("--min-confidence", help="Structures with less confidence are not found, 0 to 1.")


def run(
    paths: Annotated[list[Path], _PATHS],
    out: Annotated[Path, _OUT],
    reference: Annotated[Path | None, _REFERENCE] = None,
    exhaustive: Annotated[bool, _EXHAUSTIVE] = False,
    rounds: Annotated[int, _ROUNDS] = 6,
    samples: Annotated[int | None, _SAMPLES] = None,
    seed: Annotated[int, _SEED] = 0,
    min_confidence: Annotated[float, _MIN_CONFIDENCE] = 0.5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find each landmark, or the centroid of each label, with samples that concentrate on likely positions."""
    from farvox.cli.common import print_json, split_bundles_and_scans, stderr, stdout
    from farvox.localization import LocateOptions, locate_files
    from farvox.localization.files import summarise
    from farvox.prediction import Predictor

    options = LocateOptions(exhaustive, rounds, samples, seed, min_confidence)
    bundles, scans = split_bundles_and_scans(paths, "farvox locate BUNDLE SCAN... --out points.csv")
    predictor = Predictor.load(*bundles, device=device)
    results = []
    for result in locate_files(predictor, scans, options, reference=reference, out=out):
        results.append(result)
        if result.error or not as_json:
            (stderr() if result.error else stdout()).print(result)
    failed, summary = sum(result.landmarks is None for result in results), summarise(results)
    if as_json:
        errors = asdict(summary) if summary else None
        print_json({"scans": [r.to_dict() for r in results], "errors": errors, "out": str(out), "failed": failed})
    elif summary:
        stdout().print("errors over all scans", summary.table(), sep="\n")
    if failed < len(results) and not as_json:
        stdout().print(f"written to {out}", markup=False, soft_wrap=True)
    if failed:
        stderr().print(f"{failed} of {len(results)} scans failed", markup=False)
    raise typer.Exit(1 if failed else 0)
