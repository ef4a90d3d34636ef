"""`farvox locate`: landmarks and centroids of structures as points in mm, from few samples of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farvox.cli.common import DeviceOption, JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from farvox.localization.files import ScanResult


def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE... SCAN...",
            help="Bundle folders, whose scores are averaged; then scans: files, DICOM folders, folders of scans.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="CSV file for the points, in mm (RAS+).")],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Masks (a folder or one) or a CSV file of points, to tell the error."),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Ask at every voxel; with any network.")] = False,
    steps: Annotated[int, typer.Option("--steps", help="Rounds of samples, each nearer than the last.")] = 6,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Of all steps together (default: 4 % of the voxels).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed draws the same samples.")] = 0,
    min_confidence: Annotated[
        float, typer.Option("--min_confidence", help="Confidence below which a structure is not found, 0 to 1.")
    ] = 0.5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find each landmark, or each label's centroid, by progressive refinement: samples close in on what is likely."""
    from farvox.cli.common import print_json, split_bundles_and_scans, stderr, stdout
    from farvox.cli.progress import scan_bar
    from farvox.errors import UsageError
    from farvox.io.landmarks import write_landmarks
    from farvox.localization import LocateOptions, require_point_network
    from farvox.localization.files import landmark_rows, locate_scans, summarise
    from farvox.localization.reference import load_references
    from farvox.prediction import Predictor
    from farvox.prediction.files import find_scans

    settings = LocateOptions(dense=dense, steps=steps, samples=samples, seed=seed, min_confidence=min_confidence)
    bundles, scans = split_bundles_and_scans(paths, "farvox locate BUNDLE SCAN... --out points.csv")
    if out.suffix.lower() != ".csv" or out.is_dir():
        raise UsageError(f"--out {out}", allowed="the name of a .csv file")
    if reference is not None and reference.resolve() == out.resolve():
        raise UsageError("--out would replace the reference", hint="choose another name")
    predictor = Predictor.load(*bundles, device=device)
    if not dense:
        require_point_network(predictor)
    found = find_scans(scans, predictor.channels)
    known = load_references(reference, [scan.id for scan in found], predictor.labels) if reference else None
    results = []
    with scan_bar(stderr(), len(found)) as told:
        for result in locate_scans(predictor, found, settings, known, told):
            results.append(result)
            if result.problem:
                stderr().print(f"error: {result.problem}", markup=False)
            elif not as_json:
                stdout().print(_title(result), style="bold", markup=False)
                stdout().print(_table(result))
    failed = sum(result.location is None for result in results)
    if failed < len(results):
        write_landmarks(out, landmark_rows(results))
    figures = summarise(results)
    if as_json:
        print_json({"scans": [r.document() for r in results], "errors": figures, "out": str(out), "failed": failed})
    else:
        if figures:
            stdout().print("error over all scans", style="bold")
            stdout().print(_error_table(figures))
        if failed < len(results):
            stdout().print(f"written to {out}", markup=False, soft_wrap=True)
        if failed:
            stderr().print(f"{failed} of {len(results)} scans failed", markup=False)
    raise typer.Exit(1 if failed else 0)


def _title(result: ScanResult) -> str:
    """The scan and what it took."""
    assert result.location is not None
    location = result.location
    share = f"{location.share:.1%}" if location.share < 0.9995 else "all"
    return f"{result.case}: {location.samples:,} samples, {share} of {location.voxels:,} voxels, {result.seconds:.1f} s"


def _table(result: ScanResult) -> Table:
    """Points of one scan."""
    from rich.markup import escape
    from rich.table import Table

    assert result.location is not None
    location, errors = result.location, result.errors
    table = Table(box=None, pad_edge=False)
    table.add_column("landmark", min_width=16)
    for name in ("x, mm", "y, mm", "z, mm", "confidence"):
        table.add_column(name, justify="right")
    if errors is not None:
        table.add_column("error, mm", justify="right")
        table.add_column("voxels", justify="right")
    for number, place in enumerate(location.places):
        cells = ["not found", "", ""] if place.point is None else [f"{value:.1f}" for value in place.point]
        row = [escape(place.name), *cells, f"{place.confidence:.2f}"]
        if errors is not None:
            error = errors[number]
            nothing = "–" if error.known is not None else "not there"
            row += [_number(error.mm) or nothing, _number(error.voxels)]
        table.add_row(*row)
    return table


def _error_table(figures: dict[str, Any]) -> Table:
    """Errors over all scans."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("landmark", min_width=16)
    for name in (
        "found",
        "median\nmm",
        "worst\nmm",
        "median\nvoxels",
        "worst\nvoxels",
        "false_negatives",
        "false_positives",
    ):
        table.add_column(name, justify="right")
    for name, row in [*figures["landmarks"].items(), ("all", figures["all"])]:
        if name == "all":
            table.add_section()
        cells = [_number(row[key]) or "–" for key in ("median_mm", "worst_mm", "median_voxels", "worst_voxels")]
        table.add_row(escape(name), str(row["count"]), *cells, str(row["false_negatives"]), str(row["false_positives"]))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
