"""Label table: values with gaps in and out, unusual files refused, left and right paired by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farvox.errors import DataError
from farvox.labels import IGNORE, LabelTable

TABLE = LabelTable.from_mapping({200: "myocardium", 500: "left pool", 600: "right pool"})


@given(st.lists(st.sampled_from([0, 200, 500, 600]), min_size=1, max_size=30))
def test_values_return(values: list[int]) -> None:
    label = np.array(values, dtype=np.int16).reshape(-1, 1, 1)
    np.testing.assert_array_equal(TABLE.to_values(TABLE.to_classes(label)), label)


def test_classes_are_dense_and_types_small() -> None:
    np.testing.assert_array_equal(TABLE.to_classes(np.array([0.0, 600, 200], np.float32)), [0, 3, 1])
    assert TABLE.mask_dtype == np.uint16
    assert LabelTable.from_mapping({3: "a"}).mask_dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([0, 1], "value(s) 1"),
        ([0, -200], "-200"),
        ([0, 0.5], "fractional"),
        ([0, np.nan], "NaN"),
        ([0, 70000], "70000"),
    ],
)
def test_values_beyond_the_table_are_named_with_the_case(values: list[float], word: str) -> None:
    with pytest.raises(DataError) as error:
        TABLE.to_classes(np.array(values), case="cmr_7")
    assert str(error.value).startswith("case cmr_7: ")
    assert word in str(error.value)


def test_ignored_voxels_keep_their_own_index() -> None:
    table = LabelTable.from_mapping({1: "a", 2: "b", 4: "ignore"}, ignore=4)
    assert table.classes == 3
    np.testing.assert_array_equal(table.to_classes(np.array([4, 2, 0])), [IGNORE, 2, 0])


def test_mirrored_classes_follow_names() -> None:
    table = LabelTable.from_mapping(
        {1: "liver", 2: "right kidney", 3: "Left Kidney", 4: "Amygdala right", 5: "left atrium"}
    )
    np.testing.assert_array_equal(table.mirror_classes, [0, 1, 3, 2, 4, 5])


@pytest.mark.parametrize("names", [{}, {0: "background"}, {-3: "odd"}])
def test_useless_tables_are_refused(names: dict[int, str]) -> None:
    with pytest.raises(DataError):
        LabelTable.from_mapping(names)


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        ({1: "LeftKidney", 2: "RightKidney"}, [0, 2, 1]),
        ({1: "左腎", 2: "右腎", 3: "肝臓"}, [0, 1, 2, 3]),
        ({1: "T+", 2: "T-"}, [0, 1, 2]),
        ({1: "kidney_l", 2: "kidney_r", 3: "L5"}, [0, 2, 1, 3]),
        ({1: "left lung", 2: "Left Lung", 3: "right lung"}, [0, 1, 2, 3]),
    ],
)
def test_pairs_are_found_by_words_alone(names: dict[int, str], mirrored: list[int]) -> None:
    np.testing.assert_array_equal(LabelTable.from_mapping(names).mirror_classes, mirrored)


def test_sides_without_partner_are_named() -> None:
    table = LabelTable.from_mapping({1: "left atrium", 2: "left kidney", 3: "right kidney", 4: "liver"})
    assert table.unpaired_sides == ["left atrium"]
