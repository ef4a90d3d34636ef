"""`farvox check`: one table of every case, its problem and its fix, before any work starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from farvox.cli.common import DatasetArgument, ImagesOption, JsonOption, LabelsOption, LandmarksOption, RadiusOption

if TYPE_CHECKING:
    from rich.table import Table

    from farvox.data import CaseCheck, Dataset


def run(
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    radius: RadiusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at every case of a dataset: what it is, what is wrong with it, how to mend it."""
    from farvox.cli.common import check_cases, open_dataset, print_json, stdout
    from farvox.data import labels_never_present

    found = open_dataset(dataset, images, labels, landmarks, radius)
    checks = check_cases(found)
    bad = [check for check in checks if check.problem]
    absent = labels_never_present(found, checks)
    if as_json:
        print_json(
            {
                "dataset": found.name,
                "layout": found.layout,
                "channels": found.channels,
                "labels": dict(zip(found.labels.values, found.labels.names, strict=True)),
                "notes": found.notes,
                "labels_in_no_case": [{"value": value, "name": name} for value, name in absent],
                "cases": [asdict(check) for check in checks],
                "bad": len(bad),
            }
        )
    else:
        console = stdout()
        size = f"{len(found.cases)} labelled cases, {len(found.unlabelled)} without label"
        channels = ", ".join(found.channels)
        console.print(f"{found.name}: {size}; {found.layout} layout; channels: {channels}", markup=False, style="bold")
        shown = ", ".join(f"{value} {name}" for _, value, name in found.labels.foreground)
        console.print(f"labels: {shown}", markup=False)
        for note in found.notes:
            console.print(f"note: {note}", markup=False)
        for value, name in absent:
            console.print(f"note: label {value} ({name}) occurs in no case", markup=False)
        console.print(table(found, checks))
        verdict = f"{len(bad)} of {len(checks)} cases need mending" if bad else f"all {len(checks)} cases are fine"
        console.print(verdict, markup=False)
    raise typer.Exit(1 if bad else 0)


def table(dataset: Dataset, checks: list[CaseCheck]) -> Table:
    """Every case in a row; bad ones first."""
    from rich.markup import escape
    from rich.table import Table

    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("case", "voxels", "mm", "axes", "type", "range", "labels"):
        out.add_column(name, no_wrap=name in ("case", "voxels", "mm"), overflow="ellipsis")
    out.add_column("remarks", ratio=1)
    several = len(dataset.labels.foreground)
    for check in sorted(checks, key=lambda c: (not c.problem, not c.notes)):
        if check.labels is None:
            values = "–"
        elif several > 6:
            values = f"{len(check.labels)} of {several}"
        else:
            values = " ".join(map(str, check.labels))
        said = "; ".join(check.notes)
        if check.problem:
            said = f"[red]{escape(check.problem)}[/red]" + (f" [dim]→ {escape(check.fix)}[/dim]" if check.fix else "")
        out.add_row(
            escape(check.id),
            "×".join(map(str, check.shape)) if check.shape else "–",
            "×".join(f"{s:.3g}" for s in check.spacing) if check.spacing else "–",
            check.axcodes or "–",
            check.dtype or "–",
            "{:.4g} … {:.4g}".format(*check.intensities) if check.intensities else "–",
            values,
            said,
        )
    return out
