"""`farvox predict`: masks on the scans' own grids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farvox.cli.common import DeviceOption, JsonOption


def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE... SCAN...",
            help="Bundle folders, whose scores are averaged; then scans: files, DICOM folders, folders of scans.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    max_memory: Annotated[str | None, typer.Option("--max-memory", help="Most memory to use, such as 2G.")] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share that neighbouring windows have in common.")
    ] = 0.5,
    point_stride: Annotated[
        str,
        typer.Option(
            metavar="native|1|2|4|adaptive",
            help="Where point networks are evaluated: as built, at every nth voxel, or closer where classes meet.",
        ),
    ] = "native",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment scans with one bundle or the mean of several; each mask takes its scan's name, grid and format."""
    from dataclasses import asdict

    from farvox.cli.common import print_json, split_bundles_and_scans, stderr, stdout
    from farvox.cli.progress import scan_bar
    from farvox.prediction import Predictor, parse_memory, parse_point_stride
    from farvox.prediction.files import find_scans, predict_scans

    limit = parse_memory(max_memory) if max_memory else None
    bundles, scans = split_bundles_and_scans(paths, "farvox predict BUNDLE SCAN... --out DIR")
    predictor = Predictor.load(*bundles, device=device, overlap=overlap, sampling=parse_point_stride(point_stride))
    found = find_scans(scans, predictor.channels)
    results = []
    with scan_bar(stderr(), len(found)) as told:
        for result in predict_scans(predictor, found, out, max_memory=limit, progress=told):
            results.append(result)
            if result.error:
                stderr().print(f"error: {result.error}", markup=False)
            elif not as_json:
                asked = "" if result.asked is None else f", asked at {result.asked:.0%} of the voxels"
                stdout().print(f"{result.mask}  {result.seconds:.1f} s{asked}", markup=False, soft_wrap=True)
    failed = sum(result.mask is None for result in results)
    if as_json:
        print_json({"masks": [asdict(result) for result in results], "failed": failed})
    elif failed:
        stderr().print(f"{failed} of {len(results)} scans failed", markup=False)
    raise typer.Exit(1 if failed else 0)
