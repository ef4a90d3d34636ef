"""`farvox predict`: segments scans; each mask has the grid of its scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption

_PATHS_HELP = "Bundle or run folders, whose probabilities are averaged; then scans: files, DICOM folders, or folders."
_STRIDE_HELP = "Where point networks are evaluated: as trained, at every nth voxel, or finer where classes meet."


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="BUNDLE... SCAN...", help=_PATHS_HELP, show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    max_memory: Annotated[str | None, typer.Option("--max-memory", help="Largest memory to use, such as 2G.")] = None,
    overlap: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Fraction that neighbouring windows have in common [0.5].")
    ] = None,
    point_stride: Annotated[
        str, typer.Option("--point-stride", metavar="native|1|2|4|adaptive", help=_STRIDE_HELP)
    ] = "native",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import the modules of own networks that bundles name.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment scans with one bundle or the mean of several; each mask has its scan's name, grid and format."""
    from dataclasses import asdict

    from farvox.cli.common import print_json, progress_for, split_bundles_and_scans, stderr, stdout
    from farvox.prediction import Predictor, parse_memory, parse_point_stride

    stride, memory = parse_point_stride(point_stride), parse_memory(max_memory) if max_memory else None
    bundles, scans = split_bundles_and_scans(paths, "farvox predict BUNDLE SCAN... --out DIR")
    predictor = Predictor.load(bundles, device=device, overlap=overlap, point_stride=stride, trust_code=trust_code)
    results = []
    with progress_for(as_json) as progress:
        for result in predictor.segment_files(scans, out, max_memory=memory, progress=progress):
            results.append(result)
            for note in result.notes:
                stderr().print(f"note: case {result.case}: {note}", markup=False)
            if result.error:
                stderr().print(f"error: {result.error}", markup=False)
            elif not as_json:
                fraction = result.n_evaluated_fraction
                evaluated = "" if fraction is None else f", evaluated at {fraction:.0%} of the voxels"
                stdout().print(f"{result.mask}  {result.seconds:.1f} s{evaluated}", markup=False, soft_wrap=True)
    failed = sum(result.mask is None for result in results)
    if as_json:
        print_json({"masks": [asdict(result) for result in results], "failed": failed})
    elif failed:
        stderr().print(f"{failed} of {len(results)} scans failed", markup=False)
    raise typer.Exit(1 if failed else 0)
