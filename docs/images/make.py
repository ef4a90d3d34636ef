"""Draws the README's picture from what `farvox demo` leaves: the median phantom, reference above prediction."""

from __future__ import annotations

import sys
from pathlib import Path

from farvox.figures.overlays import overlay_figure
from farvox.figures.style import label_colours
from farvox.geometry import Orient
from farvox.io import read_label, read_scan
from farvox.runs.run import Run


def main(demo: Path) -> None:
    """Write `demo.png` next to this file."""
    run = Run.read(demo)
    cases = sorted(run.metrics.cases, key=lambda case: case.mean.dice or 0.0)
    case = cases[len(cases) // 2]
    scan = read_scan(Path(str(case.scan)))
    step = Orient.to_canonical(scan.grid)
    labels = [
        step.apply(read_label(Path(str(side)))[0])
        for side in (case.reference, case.prediction)
    ]
    colours = label_colours([label.value for label in run.labels])
    figure = overlay_figure(
        step.apply(scan.image)[0], *labels, step.target.spacing, colours
    )
    figure.savefig(Path(__file__).parent / "demo.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
