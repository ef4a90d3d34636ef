"""Overlap figures against hand counts and set arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from farvox.metrics import Overlap

masks = arrays(bool, (4, 3, 2))


def test_hand_counted_masks():
    prediction, reference = np.zeros((2, 10, 10, 10), bool)
    prediction[0:4, 0:2, 0] = True
    reference[2:5, 0:2, 0] = True
    count = Overlap.of(prediction, reference)
    assert (count.true_positives, count.false_positives, count.false_negatives, count.true_negatives) == (4, 4, 2, 990)
    assert count.dice == pytest.approx(8 / 14)
    assert count.sensitivity == pytest.approx(4 / 6)
    assert count.specificity == pytest.approx(990 / 994)


def test_a_crop_keeps_the_specificity_of_the_scan():
    prediction, reference = np.zeros((2, 10, 10, 10), bool)
    prediction[3:6, 3:6, 3:6] = True
    reference[4:7, 3:6, 3:6] = True
    box = np.s_[3:7, 3:6, 3:6]
    assert Overlap.of(prediction[box], reference[box], 1000) == Overlap.of(prediction, reference)


def test_nothing_to_divide_by_is_undefined():
    none, whole = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    empty = Overlap.of(none, none)
    assert (empty.dice, empty.sensitivity, empty.specificity) == (None, None, 1.0)
    full = Overlap.of(none, whole)
    assert (full.dice, full.sensitivity, full.specificity) == (0.0, 0.0, None)


@given(masks, masks)
def test_figures_follow_from_sets_of_voxels(prediction, reference):
    p, r = (set(np.flatnonzero(mask)) for mask in (prediction, reference))
    count = Overlap.of(prediction, reference)
    assert count.dice == (2 * len(p & r) / (len(p) + len(r)) if p or r else None)
    assert count.sensitivity == (len(p & r) / len(r) if r else None)
    assert count.specificity == ((24 - len(p | r)) / (24 - len(r)) if len(r) < 24 else None)
    assert count.dice == Overlap.of(reference, prediction).dice
    assert count.prediction == len(p)
    assert count.reference == len(r)


@given(st.integers(1, 24))
def test_identical_masks_agree_fully(size):
    mask = np.arange(24).reshape(4, 3, 2) < size
    count = Overlap.of(mask, mask)
    assert count.dice == count.sensitivity == 1
