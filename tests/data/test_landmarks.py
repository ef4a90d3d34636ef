"""Landmarks: round trip and errors of the table, spheres in mm, and datasets with landmarks instead of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.data import check, load_case, read_dataset
from farvox.data.dataset import LandmarkSpheres
from farvox.data.landmark_masks import rasterise_landmarks
from farvox.data.landmarks import default_radius_mm
from farvox.data.load import label_grid, label_path
from farvox.errors import DataError, UsageError
from farvox.geometry import Grid
from farvox.io.landmarks import LandmarkRow, read_landmarks, write_landmarks
from farvox.types import FloatArray
from tests.conftest import real_data
from tests.data.files import noise, oblique, save

SHAPE = (24, 20, 18)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def ball(landmark_radius_mm: float, *points: FloatArray) -> LandmarkSpheres:
    centres = tuple((n, f"p{n}", (p[0], p[1], p[2])) for n, p in enumerate(points, start=1))
    return LandmarkSpheres(centres, landmark_radius_mm, Path("points.csv"))


def scans(root: Path, affine: FloatArray, count: int = 3) -> Path:
    for number in range(count):
        save(root / "scans" / f"s{number}.nii.gz", noise(SHAPE, number), affine)
    return root


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    rows = [
        LandmarkRow("a", "left, upper", (-1.25, 2.0, 1e3 + 0.1234), {"confidence": 0.9}),
        LandmarkRow("a", "apex", None, {"confidence": 0.1}),
        LandmarkRow("b", "apex", (0.0, -0.5, 7.0)),
    ]
    write_landmarks(tmp_path / "out" / "points.csv", rows)
    landmarks = read_landmarks(tmp_path / "out" / "points.csv")
    assert landmarks.names == ("left, upper", "apex")
    assert landmarks.points == {"a": {"left, upper": (-1.25, 2.0, 1000.1234)}, "b": {"apex": (0.0, -0.5, 7.0)}}
    assert (tmp_path / "out" / "points.csv").read_text(encoding="utf-8").splitlines()[2] == "a,apex,,,,0.1"


def test_columns_in_any_order_file_names_as_cases_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffZ, x ,Landmark,y,case,who\n3,1,apex,2,sub/s0.nii.gz,me\n\n"
    assert read_landmarks(table(tmp_path / "p.csv", text)).points == {"s0": {"apex": (1.0, 2.0, 3.0)}}


HEAD = "case,landmark,x,y,z\n"
FAULTS = {
    "column": ("case,landmarks,x,y,z\ns0,a,1,2,3\n", "no column landmark", "did you mean 'landmarks'?"),
    "coordinate column": ("case,landmark,x_mm,y,z\ns0,a,1,2,3\n", "no column x;", "x, y and z in mm"),
    "word": (HEAD + "s0,a,1,two,3\n", "y of landmark 'a' is 'two' in line 2", "decimal point"),
    "infinite": (HEAD + "s0,a,1,2,inf\n", "z of landmark 'a' is 'inf'", "a number"),
    "half empty": (HEAD + "s0,a,1,,3\n", "y of landmark 'a' is ''", "all three empty"),
    "short line": (HEAD + "s0,a,1,2\n", "line 2 of", "5, as its first line"),
    "twice": (HEAD + "s0,a,1,2,3\ns0,b,1,2,3\ns0,a,4,5,6\n", "'a' is in lines 2 and 4", "different names"),
    "no name": (HEAD + "s0,,1,2,3\n", "line 2 of", "has no landmark"),
    "nothing": (HEAD, "contains no landmark", "one row"),
    "empty": ("", "is empty", "case,landmark,x,y,z"),
    "semicolons": ("case;landmark;x;y;z\ns0;a;1,5;2;3\n", "by semicolons", "comma-separated"),
    "tabs": ("case\tlandmark\tx\ty\tz\n", "by tabs", "comma-separated"),
    "slicer": ("# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n", "3D Slicer", "signs of x and y"),
    "unknown case": (HEAD + "s7,a,1,2,3\nt,b,1,2,3\n", "of 's7' and of 1 more", "known: s0, s1, s2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_error_is_one_line_with_a_hint(fault: str, tmp_path: Path) -> None:
    text, found, hint = FAULTS[fault]
    scans(tmp_path, np.eye(4))
    with pytest.raises(DataError) as error:
        read_dataset(tmp_path, images="scans/*.nii.gz", landmarks=table(tmp_path / "p.csv", text))
    assert found in str(error.value)
    assert hint in str(error.value)


def test_files_that_are_not_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_landmarks(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="is not text"):
        read_landmarks(save(tmp_path / "scan.nii.gz", noise(SHAPE)))


def test_points_outside_are_identified_as_indices_or_lps(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[:3, 3] = (200, 150, 900)
    scans(tmp_path, affine, 1)
    inside = Grid(SHAPE, affine).voxel_to_mm(np.array([[3.0, 4.0, 5.0]]))[0]

    def problem(x: float, y: float, z: float) -> str:
        path = table(tmp_path / "p.csv", f"{HEAD}s0,a,{x},{y},{z}\n")
        case = check(read_dataset(tmp_path, images="scans/*.nii.gz", landmarks=path)).cases[0]
        return f"{case.error} {case.hint}"

    assert "None" in problem(*inside)
    assert "as voxel indices (multiply" in problem(3, 4, 5)
    assert "x and y negated (they are LPS" in problem(-inside[0], -inside[1], inside[2])
    far = problem(1000, 1000, 0)
    assert "landmark 'a' at (1000.0, 1000.0, 0.0) mm is outside" in far
    assert "x 153.0 to 201.0, y 111.0 to 151.0, z 898.5 to 952.5 mm" in far
    assert "check the case's name" in far


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(0.3, 0.7)] * 3),
    st.floats(2.0, 5.0),
    st.booleans(),
)
def test_a_sphere_has_the_right_volume_and_centre(place: tuple[float, ...], radius: float, turned: bool) -> None:
    grid = Grid((48, 44, 40), oblique((0.5, 0.6, 0.7)) if turned else np.diag([0.5, 0.6, 0.7, 1]))
    point = grid.voxel_to_mm((np.array(place) * grid.shape)[None])[0]
    label = rasterise_landmarks(ball(radius, point), grid)
    voxels = np.argwhere(label == 1)
    volume = len(voxels) * grid.voxel_ml * 1000
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)
    assert np.linalg.norm(grid.voxel_to_mm(voxels).mean(0) - point) < 0.2
    away = np.linalg.norm(grid.voxel_to_mm(np.argwhere(label == 0)) - point, axis=1)
    assert away.min() > radius
    assert np.linalg.norm(grid.voxel_to_mm(voxels) - point, axis=1).max() <= radius


def test_overlapping_spheres_are_divided_and_small_ones_have_a_voxel() -> None:
    grid = Grid(SHAPE, np.diag([1.0, 1.0, 4.0, 1.0]))
    a, b = np.array([8.0, 9.0, 32.0]), np.array([11.0, 9.0, 32.0])
    label = rasterise_landmarks(ball(3.0, a, b), grid)
    assert (label[7:10, 9, 8] == 1).all()
    assert (label[10:13, 9, 8] == 2).all()
    assert (label == 1).sum() == (label == 2).sum()
    between = rasterise_landmarks(ball(0.5, np.array([4.4, 5.0, 33.9])), grid)
    assert np.argwhere(between == 1).tolist() == [[4, 5, 8]]
    corner = rasterise_landmarks(ball(2.5, np.array([-0.4, -0.4, -1.9])), grid)
    assert corner[0, 0, 0] == 1
    assert corner.sum() == 3


def test_a_dataset_has_landmarks_instead_of_labels(tmp_path: Path) -> None:
    affine = oblique()
    scans(tmp_path, affine)
    grid = Grid(SHAPE, affine)
    tip, base, other = grid.voxel_to_mm(np.array([[12.0, 10.0, 9.0], [4.0, 5.0, 6.0], [20.3, 3.2, 11.1]]))
    rows = [LandmarkRow("s0", "tip", tuple(tip)), LandmarkRow("s0", "base", tuple(base))]
    rows += [LandmarkRow("s2", "base", tuple(other)), LandmarkRow("s2", "tip", None)]
    write_landmarks(tmp_path / "p.csv", rows)
    dataset = read_dataset(tmp_path, images="scans/*.nii.gz", landmarks=tmp_path / "p.csv")
    assert [case.id for case in dataset.cases] == ["s0", "s2"]
    assert [case.id for case in dataset.unlabelled] == ["s1"]
    assert dataset.labels.names == ("background", "tip", "base")
    assert dataset.landmark_radius_mm == 6.8  # 1.5 of 4.5 mm, to two figures
    assert dataset.notes == (f"labels are spheres of 6.8 mm around the landmarks of {tmp_path / 'p.csv'}",)
    checks = check(dataset).cases
    assert [case.error for case in checks] == [None] * 3
    assert [case.labels for case in checks] == [(1, 2), (2,), None]
    case = load_case(dataset, dataset.cases[1])
    assert case.classes is not None
    assert set(np.unique(case.classes)) == {0, 2}
    assert np.linalg.norm(grid.voxel_to_mm(np.argwhere(case.classes == 2)).mean(0) - other) < 1.5
    painted = label_path(dataset.cases[1], tmp_path / "painted" / "s2.nii.gz")
    again = read_dataset(tmp_path, images="scans/s2*.nii.gz", labels="painted/s2*.nii.gz")
    same = load_case(again, again.cases[0])
    assert same.classes is not None
    assert np.array_equal(same.classes == 1, case.classes == 2)
    assert label_path(again.cases[0], tmp_path / "unused") == painted
    assert label_grid(dataset.cases[1]).difference_to(grid) is None


def test_the_default_radius_depends_on_the_scans_and_a_small_one_is_noted(tmp_path: Path) -> None:
    assert default_radius_mm([Grid((512, 512, 400), np.diag([0.8, 0.8, 1.0, 1.0]))]) == 8.1
    assert default_radius_mm([Grid((35, 50, 36), np.eye(4))]) == 1.5
    scans(tmp_path, oblique(), 1)
    centre = Grid(SHAPE, oblique()).voxel_to_mm(np.array([[10.0, 10.0, 9.0]]))[0]
    write_landmarks(tmp_path / "p.csv", [LandmarkRow("s0", "a", tuple(centre))])
    small = read_dataset(tmp_path, images="scans/*.nii.gz", landmarks=tmp_path / "p.csv", radius=2)
    assert small.notes[1] == "a radius of 2 mm is below 1.5 voxels (4.5 mm apart): spheres of very few voxels"
    for radius in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0 mm"):
            read_dataset(tmp_path, images="scans/*.nii.gz", landmarks=tmp_path / "p.csv", radius=radius)
    with pytest.raises(UsageError, match="both labels and landmarks"):
        read_dataset(tmp_path, images="scans/*", labels="scans/*", landmarks=tmp_path / "p.csv")


def test_landmarks_replace_the_labels_of_a_real_folder(tmp_path: Path) -> None:
    root = real_data("msd_hippocampus")
    whole = read_dataset(root)
    case = load_case(whole, whole.cases[0])
    assert case.classes is not None
    centre = case.grid.voxel_to_mm(np.argwhere(case.classes == 1).mean(0)[None])[0]
    write_landmarks(tmp_path / "p.csv", [LandmarkRow(case.id, "anterior", tuple(centre))])
    dataset = read_dataset(root, landmarks=tmp_path / "p.csv", radius=4)
    assert (len(dataset.cases), len(dataset.unlabelled), dataset.channels) == (1, 233, ("MRI",))
    painted = load_case(dataset, dataset.cases[0]).classes
    assert painted is not None
    assert painted.sum() == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.1)
    assert np.linalg.norm(case.grid.voxel_to_mm(np.argwhere(painted)).mean(0) - centre) < 0.2
