"""Overlays are to scale in mm, in radiological convention, one colour per label; curves and boxes show all values."""

from __future__ import annotations

import colorsys
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from farvox.figures.boxes import box_plot
from farvox.figures.overlays import foreground_box, most_foreground_slices, overlay_figure, scale_length
from farvox.figures.style import label_colours
from farvox.runs.run import FoldRun, Run
from farvox.runs.schema import EpochEvent, ValidationEvent
from tests.report.runs import phantom


def pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def axes_of(figure: Any, label: str) -> Any:
    return next(axes for axes in figure.axes if axes.get_label() == label)


def test_thick_slices_are_drawn_to_scale() -> None:
    spacing = np.array([1.25, 0.8, 7.7])
    labels = np.zeros((30, 40, 10), np.uint8)
    labels[0, 0, 0] = labels[-1, -1, -1] = 1  # the crop is then the whole scan
    figure = overlay_figure(np.zeros(labels.shape), labels, labels, spacing, {1: "#ff0000"})
    mm = np.array(labels.shape) * spacing
    scales = []
    for row, (plane, h, v) in itertools.product(
        ("reference", "prediction"), (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))
    ):
        axes = axes_of(figure, f"{row} {plane}")
        assert axes.images[0].get_extent() == [0, mm[h], 0, mm[v]]
        assert axes.get_aspect() == 1
        box = axes.get_position()
        scales += [box.width * figure.get_figwidth() / mm[h], box.height * figure.get_figheight() / mm[v]]
    assert scales == pytest.approx([scales[0]] * 12)


def test_the_view_is_in_radiological_convention() -> None:
    """A bright mark at right, anterior and superior is drawn left and on top (sagittal: anterior is left)."""
    image = np.zeros((20, 20, 20))
    image[15:, 15:, 15:] = 1
    labels = np.zeros(image.shape, np.uint8)
    labels[15:, 15:, 15:] = labels[0, 0, 0] = 1
    figure = overlay_figure(image, labels, labels, np.ones(3), {})
    drawn = pixels(figure).sum(-1)
    height, width = drawn.shape
    for plane in ("axial", "coronal", "sagittal"):
        box = axes_of(figure, f"reference {plane}").get_position()
        left, right = round(box.x0 * width), round(box.x1 * width)
        top, bottom = round(height - box.y1 * height), round(height - box.y0 * height)
        panel = drawn[top:bottom, left:right]
        middle = panel.shape[0] // 2, panel.shape[1] // 2
        assert panel[: middle[0] // 2, : middle[1] // 2].mean() > 700
        assert panel[middle[0] + 20 :, middle[1] + 20 :].mean() < 60


@pytest.mark.parametrize("count", [1, 4, 7, 12])
def test_each_label_is_drawn_in_its_colour_in_both_rows(count: int) -> None:
    names = {value: str(value) for value in range(1, count + 1)}
    labels = phantom(names, (64, 64, 16), (1, 1, 4))
    colours = label_colours(list(names))
    figure = overlay_figure(np.zeros(labels.shape), labels, labels, np.array([1.0, 1.0, 4.0]), colours)
    drawn = pixels(figure)
    halves = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    for (value, colour), half in itertools.product(colours.items(), halves):
        expected = np.round(np.array(to_rgb(colour)) * 255)
        assert np.abs(half - expected).max(-1).min() <= 12, f"label {value} is not drawn"


def test_labels_without_colour_and_empty_masks_draw_nothing() -> None:
    image = np.full((8, 8, 8), 5.0)
    empty = np.zeros(image.shape, np.uint8)
    figure = overlay_figure(image, empty, empty, np.ones(3), {1: "#ff0000"})
    drawn = pixels(figure)
    assert np.all(np.ptp(drawn, axis=-1) < 20)  # only greys
    assert most_foreground_slices(empty, empty) == (4, 4, 4)


def test_planes_are_the_slices_with_most_reference_foreground() -> None:
    reference, prediction = np.zeros((2, 9, 8, 7), np.uint8)
    reference[2:5, 3, 1:3] = 2
    reference[3, 2:7, 5] = 1
    prediction[8, 7, 6] = 1
    assert most_foreground_slices(reference, prediction) == (3, 3, 5)
    assert most_foreground_slices(np.zeros_like(reference), prediction) == (8, 7, 6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 19)] * 3), min_size=1, max_size=5), st.floats(0.1, 9))
def test_the_crop_contains_all_foreground(points: list[tuple[int, int, int]], thick: float) -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[tuple(np.array(points).T)] = True
    box = foreground_box(mask, np.array([1.0, 1.0, thick]))
    assert mask[box].sum() == mask.sum()
    assert all(0 <= side.start < side.stop <= 20 for side in box)


@given(st.floats(0.01, 1000))
def test_scale_bar_is_round_and_at_most_a_quarter(width: float) -> None:
    length = scale_length(width)
    assert width / 10.001 <= length <= width / 4 * 1.0001
    assert f"{length:.0e}"[0] in "125"


@pytest.mark.parametrize("count", [1, 3, 7, 8, 37, 120])
def test_colours_differ_and_show_on_grey(count: int) -> None:
    colours = list(label_colours(list(range(count))).values())
    assert len(set(colours)) == count
    for colour in colours:
        assert colorsys.rgb_to_hsv(*to_rgb(colour))[1] > 0.3


def test_curves_show_every_fold_over_minutes() -> None:
    folds = []
    for n in range(3):
        epochs = [EpochEvent(seconds=60, loss=1.0 + n), EpochEvent(seconds=150, loss=None)]
        validation = ValidationEvent(seconds=90, mean=0.5 + n / 10)
        folds.append(FoldRun(str(n), Path(), (*epochs, validation)))
    loss, dice = Run(Path(), tuple(folds)).plot_learning_curve().axes  # type: ignore[union-attr]
    for n, line in enumerate(loss.lines):
        np.testing.assert_array_equal(line.get_xdata(), [1.0, 2.5])
        np.testing.assert_array_equal(line.get_ydata(), [1.0 + n, np.nan])
    assert [float(line.get_ydata()[0]) for line in dice.lines] == pytest.approx([0.5, 0.6, 0.7])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["0", "1", "2"]
    assert Run(Path(), (FoldRun("0", Path()),)).plot_learning_curve() is None


def test_boxes_show_median_and_every_case() -> None:
    values = {1: [0.5, 0.7, 0.9, 0.95], 2: [], 3: [0.8]}
    figure = box_plot(values, {1: "one", 2: "two", 3: "$three$"}, label_colours(list(values)))
    (axes,) = figure.axes
    points = [np.sort(dots.get_offsets()[:, 0]) for dots in axes.collections]
    np.testing.assert_allclose(points[0], values[1])
    np.testing.assert_allclose(points[1], values[3])
    medians = {float(line.get_xdata()[0]) for line in axes.lines if line.get_linewidth() == 2.0}
    assert medians == {0.8}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two", "$three$"]
    assert [text.get_text() for text in axes.texts] == ["undefined in every case"]
