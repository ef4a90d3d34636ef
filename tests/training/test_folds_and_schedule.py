"""Folds: every case once, groups whole, classes covered. Schedule: rises, falls, follows the budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.data.folds import all_cases_fold, check_coverage, make_folds, subsample_training_cases
from farvox.errors import DataError, UsageError
from farvox.recipes import load_recipe
from farvox.training.schedule import TrainingClock, learning_rate


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 60), st.integers(0, 5))
def test_every_case_validates_once(cases: int, folds: int, seed: int) -> None:
    ids = [f"case_{n}" for n in range(cases)]
    made = make_folds(ids, folds, seed)
    assert len(made) == min(folds, cases)
    assert sorted(c for fold in made for c in fold.validation) == sorted(ids)
    sizes = [len(fold.validation) for fold in made]
    assert max(sizes) - min(sizes) <= 1
    for fold in made:
        assert sorted((*fold.training, *fold.validation)) == sorted(ids)


def test_the_split_depends_on_set_and_seed_alone() -> None:
    ids = [f"c{n}" for n in range(20)]
    assert make_folds(ids, 4, seed=1) == make_folds(ids[::-1], 4, seed=1)
    assert make_folds(ids, 4, seed=1) != make_folds(ids, 4, seed=2)


def test_frames_of_a_patient_stay_together() -> None:
    ids = [f"patient{p:03}_frame{f:02}" for p in range(12) for f in (1, 9)]
    for fold in make_folds(ids, 5, group=r"patient\d+"):
        patients = {c[:10] for c in fold.training} & {c[:10] for c in fold.validation}
        assert not patients


@pytest.mark.parametrize(
    ("ids", "folds", "group", "error", "word"),
    [
        (["a"], 5, None, DataError, "at least two"),
        (["a_1", "a_2"], 2, "a", DataError, "1 group"),
        (["a", "b"], 1, None, UsageError, "--all"),
        (["a", "b"], 2, "c", UsageError, "does not match case a"),
        (["a", "b"], 2, "(", UsageError, "regular expression"),
    ],
)
def test_impossible_splits(ids: list[str], folds: int, group: str | None, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        make_folds(ids, folds, group=group)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 3), st.data())
def test_fewer_cases_are_a_part_of_more_and_validation_stays(cases: int, seed: int, data: st.DataObject) -> None:
    fold = make_folds([f"case_{n}" for n in range(cases)], 3)[0]
    more = data.draw(st.integers(1, len(fold.training)))
    fewer = data.draw(st.integers(1, more))
    large, small = subsample_training_cases(fold, more, seed), subsample_training_cases(fold, fewer, seed)
    assert (len(large.training), len(small.training)) == (more, fewer)
    assert set(small.training) <= set(large.training) <= set(fold.training)
    assert list(small.training) == sorted(small.training)
    assert large.validation == fold.validation
    assert subsample_training_cases(fold, len(fold.training), seed) == fold


def test_the_cases_drawn_depend_on_the_seed() -> None:
    fold = all_cases_fold([f"c{n}" for n in range(20)])
    assert subsample_training_cases(fold, 5, seed=1) == subsample_training_cases(fold, 5, seed=1)
    assert len({subsample_training_cases(fold, 5, seed).training for seed in range(5)}) == 5
    for count in (0, 21):
        with pytest.raises(UsageError, match=f"{count} training cases; expected: 1 to 20"):
            subsample_training_cases(fold, count)


def test_a_class_missing_from_a_training_part_is_named() -> None:
    fold = make_folds(["a", "b", "c"], 3)[0]
    held = fold.validation[0]
    values = {case: {1} for case in "abc"} | {held: {1, 5}}
    with pytest.raises(DataError, match=r"label 5 \(spleen\)"):
        check_coverage(fold, values, {1: "liver", 5: "spleen"})
    check_coverage(all_cases_fold(["a", "b", "c"]), values, {1: "liver", 5: "spleen"})


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "exponential", "constant"])
def test_learning_rate_rises_then_falls(schedule: str) -> None:
    rates = [learning_rate(0.01, n / 1000, schedule, 0.1) for n in range(1001)]
    assert max(rates) == pytest.approx(0.01)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    last = {"cosine": 0, "polynomial": 0, "exponential": 0.01 * 0.0490409, "constant": 0.01}[schedule]
    assert rates[-1] == pytest.approx(last, abs=1e-8)


def test_exponential_schedule_falls_by_a_hundredth_in_each_of_300_epochs() -> None:
    rates = [learning_rate(0.002, epoch / 300, "exponential", 0.0) for epoch in range(301)]
    assert rates[0] == 0.002
    assert all(after == pytest.approx(0.99 * before) for before, after in pairwise(rates))


def test_halving_schedule_halves_every_50_of_1000_epochs() -> None:
    rates = [learning_rate(1e-4, epoch / 1000, "halving", 0.0) for epoch in range(1000)]
    assert rates == [1e-4 * 0.5 ** (epoch // 50) for epoch in range(1000)]


def test_inverse_schedule_divides_by_the_steps_so_far() -> None:
    assert learning_rate(0.001, 0.9, "inverse", 0.0, decay_steps=1e-4 * 2500) == pytest.approx(0.0008)
    assert learning_rate(0.001, 0.9, "inverse", 0.0) == 0.001


def test_pace_by_epochs_counts_steps_and_by_budget_seconds() -> None:
    epochs = TrainingClock.of(load_recipe("default", ["train.epochs=4"]), steps_per_epoch=5)
    assert [epochs.progress(step) for step in (0, 10, 20, 21)] == [0, 0.5, 1, 1]
    budget = TrainingClock.of(load_recipe("default", ['train.budget="10m"']), steps_per_epoch=5, before=300)
    assert budget.progress(99999) == pytest.approx(0.5, abs=0.01)
    left = budget.seconds_left(1)
    assert left == pytest.approx(300, abs=3)
