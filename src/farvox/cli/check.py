"""`farvox check`: one table of every case, its error and how to fix it, before any work starts."""

from __future__ import annotations

import typer

from farvox.cli.common import DatasetArgument, ImagesOption, JsonOption, LabelsOption, LandmarksOption, RadiusOption


def run(
    dataset: DatasetArgument = None,
    images: ImagesOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    landmark_radius: RadiusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every case of a dataset: what it is, what is wrong with it, and how to fix it."""
    from farvox.cli.common import open_dataset, print_json, progress_for, stdout
    from farvox.data import check

    with progress_for(as_json) as progress:
        result = check(open_dataset(dataset, images, labels, landmarks, landmark_radius), progress=progress)
    bad = len(result.problems)
    if as_json:
        print_json(result.to_dict())
        raise typer.Exit(1 if bad else 0)
    checked, console = result.dataset, stdout()
    console.print(f"{checked!r}; {checked.layout} layout", markup=False, style="bold")
    console.print(
        f"labels: {', '.join(f'{value} {name}' for _, value, name in checked.labels.foreground)}", markup=False
    )
    absent = [f"label {value} ({name}) occurs in no case" for value, name in result.labels_never_present]
    for note in (*checked.notes, *absent):
        console.print(f"note: {note}", markup=False)
    console.print(result.table())
    console.print(
        f"{bad} of {len(result.cases)} cases need fixing" if bad else f"all {len(result.cases)} cases are fine",
        markup=False,
    )
    raise typer.Exit(1 if bad else 0)
