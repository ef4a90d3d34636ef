"""Worst, median and best case: chosen by mean Dice, read from their files, drawn, or excused in a sentence."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from farvox.errors import FarvoxError
from farvox.report.figures import png
from farvox.report.overlays import most_foreground_slices, overlay_figure
from farvox.report.tables import number
from farvox.runs.run import CaseResult
from farvox.types import Array, FloatArray


def worst_median_best(cases: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """Worst, median (the lower one of an even count) and best case by mean Dice; fewer when there are fewer cases."""
    ranked = sorted(
        (case for case in cases if case.value("dice") is not None), key=lambda c: (c.value("dice") or 0.0, c.id)
    )
    if len(ranked) < 2:
        return [("only case", case) for case in ranked]
    chosen = [("worst case", ranked[0]), ("median case", ranked[(len(ranked) - 1) // 2]), ("best case", ranked[-1])]
    return chosen if len(ranked) > 2 else [chosen[0], chosen[2]]


def case_section(title: str, case: CaseResult, colours: Mapping[int, str], legend: str) -> str:
    """Heading, figure and legend of one case; where its files cannot be shown, a note that says why."""
    score = f"mean Dice {number(case.value('dice'), 3)}, fold {html.escape(case.fold.name)}"
    heading = f"<h3>{title}: {html.escape(case.id)} <small>{score}</small></h3>"
    try:
        image, reference, prediction, spacing = _load(case)
    except (FarvoxError, OSError) as error:
        return f'<section class="case">{heading}<p class="note">No picture: {html.escape(str(error))}.</p></section>'
    figure = overlay_figure(image, reference, prediction, spacing, colours)
    picture = png(figure, f"{title} {case.id}, reference and prediction in three planes")
    at = ", ".join(map(str, most_foreground_slices(reference, prediction)))
    size = " × ".join(f"{mm:.3g}" for mm in spacing)
    caption = f"Planes through voxel ({at}), counted towards right, anterior, superior; voxels of {size} mm."
    return (
        f'<section class="case">{heading}<figure>{picture}{legend}<figcaption>{caption}</figcaption></figure></section>'
    )


def _load(case: CaseResult) -> tuple[Array, Array, Array, FloatArray]:
    """First channel of the scan, reference and prediction values (I, J, K) in RAS+ order, and spacing in mm."""
    from farvox.geometry import Orient
    from farvox.io import read_label, read_scan

    scan = read_scan(_present(case, "scan"))
    out: list[Array] = [scan.image[0]]
    for role in ("reference", "prediction"):
        values, grid = read_label(_present(case, role))
        if difference := scan.grid.difference_to(grid):
            raise FarvoxError(f"{role} and scan do not lie on one grid ({difference})")
        out.append(values)
    step = Orient.to_canonical(scan.grid)
    image, reference, prediction = (np.asarray(step.apply(array)) for array in out)
    return image, reference, prediction, step.target.spacing


def _present(case: CaseResult, role: str) -> Path:
    path, named = case.file(role), getattr(case.metrics, role)
    if path is None:
        raise FarvoxError(f"the {role} is not at {named} any more" if named else f"metrics.json names no {role}")
    return path
