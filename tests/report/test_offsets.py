"""Learned offsets in millimetres, before and after training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from farvox.errors import DataError
from farvox.report import write_report
from farvox.report.offsets import LearnedOffsets, density_figure, offsets_section, sd_figure
from farvox.runs.run import FoldRun
from farvox.runs.schema import BundleInfo, EpochEvent
from tests.report.runs import write_run
from tests.report.test_page import Cells, text

FIELD_OF_VIEW = np.array([200.0, 100.0, 400.0])
AXES = ["left to right", "back to front", "foot to head"]


def write_offsets(path: Path, **changes: np.ndarray) -> LearnedOffsets:
    """Two layers over three snapshots: a pair that moves apart along I, and single offsets that do not move."""
    pairs = np.zeros((3, 1, 2, 3), np.float32)
    pairs[:, 0, 0, 0], pairs[:, 0, 1, 0] = [0.1, 0.3, 0.5], [-0.1, -0.3, -0.5]
    single = np.tile(np.array([[0.0, 0.2, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, -0.25]], np.float32), (3, 1, 1))
    arrays = {"step": np.array([0, 40, 80]), "minutes": np.array([0.0, 1.0, 2.0]), "field_of_view_mm": FIELD_OF_VIEW}
    arrays |= {"offsets/sparse": pairs, "offsets/deep.layer": single, **changes}
    np.savez(path, **arrays)
    return LearnedOffsets.read(path)


def filled_bins(figure: object, panel: int) -> dict[tuple[float, float], float]:
    """Centre of each bin with offsets → their number; panels are numbered row by row."""
    axes = figure.axes[panel]  # type: ignore[attr-defined]
    (mesh,) = [item for item in axes.collections if item.get_array() is not None]
    corners = np.asarray(mesh.get_coordinates())
    middle = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    counts = np.ma.filled(mesh.get_array(), 0).reshape(middle.shape[:2])
    return {tuple(map(float, middle[at])): float(counts[at]) for at in zip(*np.nonzero(counts), strict=True)}


def near(bins: dict[tuple[float, float], float], at: tuple[float, float], width: float) -> float:
    """Number of offsets in the bin around a position."""
    return sum(n for centre, n in bins.items() if np.abs(np.subtract(centre, at)).max() <= width / 2 + 1e-6)


def test_bins_contain_the_offsets(tmp_path: Path) -> None:
    learned = write_offsets(tmp_path / "offsets.npz")
    figure = density_figure(learned, "sparse", AXES)
    before, after = filled_bins(figure, 0), filled_bins(figure, 3)  # I against J
    width = float(np.diff(np.asarray(figure.axes[0].collections[0].get_coordinates())[0, :2, 0])[0])
    assert width < 0.05 * 200
    # 0.1 of half of 200 mm is 10 mm; after training 0.5 is 50 mm. Both ends of the pair are counted.
    assert sum(before.values()) == sum(after.values()) == 2
    assert near(before, (10, 0), width) == near(before, (-10, 0), width) == 1
    assert near(after, (50, 0), width) == near(after, (-50, 0), width) == 1
    other = filled_bins(density_figure(learned, "deep.layer", AXES), 5)  # J against K, after
    assert sum(other.values()) == 3
    assert near(other, (10, 0), width) == 2
    assert near(other, (0, -50), width) == 1


def test_panels_have_one_scale_and_contain_all_offsets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 0.1, (3, 200, 3)) * np.array([1, 2, 4])[:, None, None]
    learned = write_offsets(tmp_path / "offsets.npz", **{"offsets/sparse": offsets})
    figure = density_figure(learned, "sparse", AXES)
    for panel in range(6):
        assert sum(filled_bins(figure, panel).values()) == 200
    for first, second in ((0, 3), (1, 4), (2, 5)):
        assert figure.axes[first].get_xlim() == figure.axes[second].get_xlim()
        assert figure.axes[first].get_ylim() == figure.axes[second].get_ylim()
    scales = {axes.collections[0].norm for axes in figure.axes[:6]}
    assert len(scales) == 1
    assert [axes.get_aspect() for axes in figure.axes[:6]] == [1.0] * 6
    assert [axes.get_title() for axes in figure.axes[:6:3]] == ["before training", "after training"]
    assert figure.axes[0].get_xlabel() == "left to right (mm)"


def test_sd_is_in_millimetres(tmp_path: Path) -> None:
    learned = write_offsets(tmp_path / "offsets.npz")
    figure = sd_figure(learned, ("epoch", np.array([0.0, 1.0, 2.0])), AXES)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["left to right"], [10, 30, 50], rtol=1e-6)
    np.testing.assert_allclose(lines["foot to head"], 0)
    np.testing.assert_allclose(figure.axes[1].lines[2].get_ydata(), np.std([0, 0, -50]), rtol=1e-6)


def test_the_report_states_distances_before_and_after(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: "Liver"}, folds=2)
    before = write_report(run).read_text(encoding="utf-8")
    assert "Learned offsets" not in before
    write_offsets(run / "fold-1" / "offsets.npz")
    page = write_report(run).read_text(encoding="utf-8")
    (rows,) = [table for table in Cells(page).tables if table[0][:2] == ["layer", "offsets"]]
    assert rows[0][2:] == ["median (mm)", "95th percentile (mm)", "farthest (mm)", "field of view"]
    assert rows[1] == ["sparse", "2", "10.0 → 50.0", "10.0 → 50.0", "10.0 → 50.0", "200 × 100 × 400 mm"]
    assert rows[2][:3] == ["deep.layer", "3", "10.0 → 10.0"]
    assert rows[2][4] == "50.0 → 50.0"
    assert "Layer deep.layer, fold 1" in text(page)
    assert page.count("<svg") == before.count("<svg") + 3


def test_axes_are_those_of_the_network_and_epochs_those_of_the_log(tmp_path: Path) -> None:
    write_offsets(tmp_path / "offsets.npz")
    log = (EpochEvent(epoch=1, step=20, seconds=1), EpochEvent(epoch=4, step=80, seconds=4))
    fold = FoldRun("0", tmp_path, log, manifest=BundleInfo.model_validate({"preprocessing": {"axes": "LPS"}}))
    section = offsets_section([fold])
    for words in ("right to left (mm)", "front to back (mm)", "foot to head (mm)", ">epoch<"):
        assert words in section, words
    assert ">step<" in offsets_section([FoldRun("0", tmp_path)])


def test_without_a_field_of_view_in_mm_offsets_are_fractions(tmp_path: Path) -> None:
    learned = write_offsets(tmp_path / "offsets.npz", field_of_view_mm=np.full(3, np.nan))
    assert learned.distances("sparse")[-1] == pytest.approx([0.5, 0.5])
    section = offsets_section([FoldRun("0", tmp_path)])
    assert "left to right (half fields of view)" in section
    assert "nan" not in section


@pytest.mark.parametrize(
    "changes",
    [
        {"field_of_view_mm": np.ones(2)},
        {"offsets/sparse": np.zeros((2, 5, 3))},
        {"offsets/sparse": np.zeros((3, 5, 2))},
        {"offsets/sparse": np.zeros((3, 0, 3))},
    ],
)
def test_a_file_with_wrong_shapes_leaves_a_note(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"offsets\.npz"):
        write_offsets(tmp_path / "offsets.npz", **changes)
    section = offsets_section([FoldRun("0", tmp_path)])
    assert "Learned offsets" in section
    assert 'class="note"' in section


def test_damaged_files_leave_notes_and_the_rest_of_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: "Liver"}, folds=2)
    (run / "fold-0" / "offsets.npz").write_bytes(b"not a file of arrays")
    np.savez(run / "fold-1" / "offsets.npz", step=np.arange(2))
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count("offsets.npz cannot be read") == 2
    assert "How to read the numbers" in page
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["dataset"]["name"] in page
