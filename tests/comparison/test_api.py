"""`farvox.compare` without training: the order of the folds, failures, interruption, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import farvox
from farvox.data.folds import Fold
from farvox.errors import FarvoxError, ResourceError, UsageError
from farvox.recipes import Recipe, load_recipe
from tests.comparison.runs import write_run
from tests.training.runs import make_dataset

Calls = list[tuple[str, str]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "boxes", cases=4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[tuple[str, str], BaseException]], Calls]:
    """Replaces the training of a fold by the files of one, or raises the given exception."""

    def replace(errors: dict[tuple[str, str], BaseException]) -> Calls:
        made: Calls = []

        def train(_function: object, _dataset: object, fold: Fold, recipe: Recipe, folder: Path, *_: Any) -> None:
            made.append((folder.name, fold.name))
            if made[-1] in errors:
                raise errors[made[-1]]
            write_run(
                folder,
                {fold.name: dict.fromkeys(fold.validation, (0.9, 0.8))},
                settings={"train.seed": recipe.train.seed},
            )

        monkeypatch.setattr("farvox.runs.subprocess.run_in_subprocess", train)
        return made

    return replace


def test_recipes_take_turns_and_a_failure_does_not_stop_the_others(
    dataset: Path, tmp_path: Path, calls: Callable[..., Calls]
) -> None:
    made = calls({("quick", "0"): ResourceError("the process was ended by signal 9"), ("quick", "1"): MemoryError()})
    comparison = farvox.compare(dataset, ["quick", "default"], out=str(tmp_path / "out"), folds=2, progress=False)
    assert made == [("quick", "0"), ("default", "0"), ("quick", "1"), ("default", "1")]
    assert comparison.failed == ("quick, fold 0: the process was ended by signal 9", "quick, fold 1: out of memory")
    assert [row.name for row in comparison.recipes] == ["default"]
    assert len(comparison.cases) == 4
    assert comparison.report == tmp_path / "out" / "report.html"
    assert "the process was ended by signal 9" in comparison.report.read_text(encoding="utf-8")
    assert "<td>default</td>" in comparison._repr_html_()


def test_an_interruption_leaves_the_comparison_of_finished_folds(
    dataset: Path, tmp_path: Path, calls: Callable[..., Calls]
) -> None:
    made = calls({("b", "1"): KeyboardInterrupt()})
    recipes = [load_recipe("quick").model_copy(update={"name": name}) for name in "ab"]
    comparison = farvox.compare(dataset, recipes, out=tmp_path, folds=2, progress=False)
    assert made[-1] == ("b", "1")
    assert comparison.failed == ("stopped before all folds were trained",)
    assert len(comparison.cases) == 2
    assert [row.name for row in comparison.recipes] == ["a", "b"]


def test_seeds_get_runs_of_their_own_on_one_split(dataset: Path, tmp_path: Path, calls: Callable[..., Calls]) -> None:
    made = calls({})
    comparison = farvox.compare(dataset, "quick", out=tmp_path, folds=2, fold=1, seeds=[3, 5], progress=False)
    assert made == [("quick-seed-3", "1"), ("quick-seed-5", "1")]
    assert comparison.recipes[0].seeds == (3, 5)
    assert len(comparison.cases) == 2
    assert len(comparison.csv().splitlines()) == 2


def test_without_a_finished_fold_the_first_failure_is_raised(
    dataset: Path, tmp_path: Path, calls: Callable[..., Calls]
) -> None:
    calls({("quick", name): ResourceError("disk full") for name in "01"})
    with pytest.raises(FarvoxError, match="no comparison: quick, fold 0: disk full"):
        farvox.compare(dataset, ["quick"], out=tmp_path, folds=2, progress=False)


def test_contradictory_arguments_are_refused(dataset: Path, tmp_path: Path) -> None:
    for arguments, options, word in (
        ((dataset, ["quick"]), {"runs": ["x"]}, "runs together with a dataset"),
        ((None, ["quick"]), {}, "no dataset"),
        ((dataset,), {}, "no recipe"),
        ((dataset, ["quick", "quick"]), {}, "recipe quick twice"),
        ((dataset, ["quick"]), {"budget": "1m", "epochs": 2}, "both"),
    ):
        with pytest.raises(UsageError, match=word):
            farvox.compare(*arguments, out=tmp_path / "out", progress=False, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
