"""The figure: colours of directions, and planes with the right proportions in mm."""

from __future__ import annotations

import numpy as np
import pytest

from farvox.geometry import Orient
from farvox.registration.figure import colour_wheel, flow_colours, registration_figure
from tests.registration.made import grid_about_origin, scan_on, wave


def test_directions_have_the_colours_of_the_wheel() -> None:
    right = np.array([1.0, 0.5, -0.5, -1.0, -0.5, 0.5, 0.0, 9.0])
    up = np.array([0.0, 3**0.5 / 2, 3**0.5 / 2, 0.0, -(3**0.5) / 2, -(3**0.5) / 2, 0.0, 0.0])
    expected = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 1, 1], [1, 0, 0]]
    np.testing.assert_allclose(flow_colours(right, up, 1.0), expected, atol=1e-9)
    np.testing.assert_allclose(flow_colours(right[:1], up[:1], 2.0), [[1, 0.5, 0.5]])
    wheel = colour_wheel(101)
    np.testing.assert_allclose(wheel[50, 100], [1, 0, 0, 1])  # right
    np.testing.assert_allclose(wheel[50, 0], [0, 1, 1, 1])
    np.testing.assert_allclose(wheel[100, 50], [0.5, 1, 0, 1], atol=1e-9)  # top
    assert wheel[0, 0, 3] == 0


@pytest.mark.parametrize("shape", [(20, 24, 10), (20, 24, 1), (1, 20, 24)])
def test_one_row_for_each_plane_at_one_scale(shape: tuple[int, int, int]) -> None:
    # The axes are posterior, left, superior; the figure is in RAS+ order.
    grid = grid_about_origin(shape, (1.0, 2.0, 3.0), np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, 1]]))
    scan = scan_on(grid).image[0]
    labels = (scan > 0.3).astype(np.uint8)
    field = np.zeros((3, *shape), np.float32)
    field[0] = 2.5  # to the right of the patient, which is the left of the figure
    figure = registration_figure(scan, scan, scan, field, grid, fixed_labels=labels, labels=(labels, labels))
    size = dict(zip("RAS", np.array(Orient.to_canonical(grid).target.shape) * [2.0, 1.0, 3.0], strict=True))
    sides = {"axial": "RA", "coronal": "RS", "sagittal": "AS"}
    planes = [name for name, (h, v) in sides.items() if size[h] > 3 and size[v] > 3] if 1 in shape else list(sides)
    panels = {axes.get_label(): axes for axes in figure.axes}
    titles = ["difference before", "difference after", "labels before", "labels after", "displacement"]
    assert set(panels) == {*(f"{title} {plane}" for title in titles for plane in planes), "colour wheel"}
    inches = figure.get_size_inches()
    for plane in planes:
        box = panels[f"displacement {plane}"].get_position()
        wide, tall = box.width * inches[0], box.height * inches[1]
        h, v = (size[letter] for letter in sides[plane])
        assert wide / tall == pytest.approx(h / v, rel=1e-6)
        assert panels[f"labels after {plane}"].get_xlim() == (pytest.approx(h), 0)
        shown = panels[f"displacement {plane}"].images[0].get_array()
        expected = [0, 1, 1] if sides[plane][0] == "R" else [1, 1, 1]
        np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1e-6)


def test_without_labels_the_scans_are_shown() -> None:
    grid = grid_about_origin((12, 10, 8), (2.0, 2.0, 2.0))
    fixed, moving = scan_on(grid, wave).image[0], scan_on(grid).image[0]
    inside = np.ones(grid.shape, bool)
    inside[:6] = False
    figure = registration_figure(fixed, moving, moving, np.zeros((3, *grid.shape)), grid, inside=inside)
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert {"fixed scan axial", "moved scan axial"} <= set(panels)
    before, after = (panels[f"difference {when} axial"].images[0].get_array() for when in ("before", "after"))
    assert (np.asarray(after)[:, :6] == 0).all()
    np.testing.assert_allclose(np.asarray(after)[:, 6:], np.asarray(before)[:, 6:])
