"""A run folder read back: metrics over folds, cases by rank, figures, tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from farvox.errors import FarvoxError, UsageError
from farvox.runs.run import Run
from farvox.runs.schema import EpochEvent, FoldIdentity, read_log
from tests.report.runs import write_run

NAMES = {1: "Liver", 63: "Spleen"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", NAMES, folds=2)


def test_metrics_are_those_of_all_folds(folder: Path) -> None:
    run = Run.read(str(folder))
    assert [fold.name for fold in run.folds] == ["0", "1"]
    assert [case.case for case in run.metrics.cases] == ["case_000", "case_002", "case_001"]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["summary"]
    assert run.metrics.summary.foreground.dice.mean == summary["foreground"]["dice"]["mean"]
    assert [label.name for label in run.metrics.labels] == ["Liver", "Spleen"]
    assert run.folds[0].metrics is not None
    assert len(run.folds[0].metrics.cases) == 2
    assert run.report == folder / "report.html"


def test_metrics_are_printed_in_one_line(folder: Path) -> None:
    metrics = Run.read(folder).metrics
    values = [metrics.summary.foreground, metrics.summary.labels[1], metrics.summary.labels[63]]
    mean, liver, spleen = (f"{row.dice.mean:.3f}" for row in values)
    assert str(metrics) == f"<Metrics of 3 cases: Dice mean {mean}, Liver {liver}, Spleen {spleen}>"
    assert repr(metrics) == str(metrics)


def test_without_a_summary_the_metrics_are_computed_from_the_cases(folder: Path) -> None:
    run = Run.read(folder)
    bare = Run(run.path, run.folds)
    assert bare.statistics is None
    dice = [case.mean.dice or 0.0 for case in run.metrics.cases]
    assert bare.metrics.summary.foreground.dice.mean == pytest.approx(np.mean(dice))


def test_logs_give_curves_and_the_last_lines(folder: Path) -> None:
    fold = Run.read(folder).folds[1]
    minutes, losses = fold.loss_curve
    assert (len(minutes), minutes[0], minutes[-1]) == (24, pytest.approx(1 / 3), 8)
    assert losses[0] > losses[-1]
    assert len(fold.validation_curve[0]) == 8
    assert fold.start.training_cases == ("a", "b")
    assert fold.end is not None
    assert (fold.end.stop_reason, fold.end.step, fold.end.seconds) == ("budget", 960, 481.3)
    assert isinstance(fold.log[1], EpochEvent)
    assert fold.log[1].fraction_done == pytest.approx(1 / 24)


def test_lines_of_a_log_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    lines = ['{"event": "epoch", "seconds": 1.5, "progress": 0.5}', '{"event": "other"}', "[1]", '{"event": "epo']
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (event,) = read_log(tmp_path / "log.jsonl")
    assert isinstance(event, EpochEvent)
    assert (event.seconds, event.fraction_done) == (1.5, 0.5)


def test_cases_are_shown_by_rank_and_by_id(folder: Path, tmp_path: Path) -> None:
    run = Run.read(folder)
    ranked = run.worst_median_best()
    values = [case.value("dice") for case in ranked.values()]
    assert list(ranked) == ["worst", "median", "best"]
    assert values == sorted(values, key=lambda value: value or 0.0)
    assert len(run.show("best").axes) == len(run.show("case_001").axes) == 6
    with pytest.raises(UsageError, match="no validated case case_009"):
        run.show("case_009")
    assert run.show("worst").axes
    one = Run(run.path, run.folds[1:])
    assert list(one.worst_median_best()) == ["only"]
    assert len(one.show().axes) == len(one.show("median").axes) == 6
    scan = ranked["worst"].load()
    assert scan.image.shape == scan.reference.shape == scan.prediction.shape == (80, 64, 9)
    np.testing.assert_allclose(scan.spacing, (1.25, 1.25, 7.7), rtol=1e-6)
    gone = ranked["worst"].metrics.model_copy(update={"scan": str(tmp_path / "gone.nii.gz")})
    with pytest.raises(FarvoxError, match=r"the scan is no longer at .*gone\.nii\.gz"):
        type(ranked["worst"])(run.folds[0], gone).load()


def test_a_run_is_shown_in_one_line_and_as_a_table(folder: Path) -> None:
    run = Run.read(folder)
    assert repr(run).startswith(f"<Run {folder}: 0 of 2 folds complete, mean foreground Dice 0.")
    assert "<td>1 Liver</td><td>3</td>" in run._repr_html_()


def test_a_split_of_version_1_equals_its_new_form() -> None:
    old = {
        "fold": "0",
        "training": ["a"],
        "validation": ["b"],
        "labels": {"1": "liver"},
        "radius": 4.0,
        "recipe": ["x"],
    }
    assert FoldIdentity.model_validate(old) == FoldIdentity(
        fold="0",
        training_cases=("a",),
        validation_cases=("b",),
        labels={1: "liver"},
        landmark_radius_mm=4.0,
        recipe=("x",),
    )


def test_unexpected_content_names_file_and_key(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fold-0").mkdir()
    (tmp_path / "fold-0" / "metrics.json").write_text('{"cases": 3}', encoding="utf-8")
    with pytest.raises(FarvoxError, match=r"metrics\.json has an unexpected value at cases"):
        Run.read(tmp_path)
