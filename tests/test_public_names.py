"""The names a user meets: all listed, all typed, resolved on first use, and still functions at the second."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import farvox


def test_every_public_name_resolves_and_stays_what_it_is() -> None:
    for name in farvox.__all__:
        first = getattr(farvox, name)
        assert not isinstance(first, types.ModuleType), f"farvox.{name} is a module"
        assert getattr(farvox, name) is first
    assert dir(farvox) == sorted(farvox.__all__)


def test_type_checkers_and_users_see_the_same_names() -> None:
    listed = {name for names in farvox._MODULES.values() for name in names}
    assert listed | {"__version__"} == set(farvox.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'farvox' has no attribute 'segment_everything'"):
        _ = farvox.segment_everything


def test_importing_farvox_imports_neither_torch_nor_numpy() -> None:
    heavy = ("torch", "numpy", "rich", "pydantic")
    code = f"import sys, farvox; dir(farvox); print(*[m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_versions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    farvox.show_versions()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["farvox", farvox.__version__]
    assert {"torch", "numpy", "device", "memory_gb"} <= {line.split()[0] for line in lines}
    farvox.show_versions(system=False)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["farvox", "python"]


def test_importing_farvox_takes_less_than_a_third_of_a_second() -> None:
    code = "import time; start = time.process_time(); import farvox; print(time.process_time() - start)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.3


def test_help_takes_less_than_half_a_second() -> None:
    script = "from farvox.cli.app import app; app(['--help'], standalone_mode=False)"
    code = f"{script}\nimport time; print(time.process_time())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout.split()[-1]) < 0.5


def test_functions_stay_callable_after_imports_of_the_packages_that_had_their_names() -> None:
    code = """
import inspect, sys, warnings
import farvox
warnings.simplefilter("always")
record = warnings.catch_warnings(record=True).__enter__()
if sys.argv[1] == "after":
    before = {name: getattr(farvox, name) for name in ("train", "evaluate", "compare", "locate", "register")}
import farvox.train.run, farvox.evaluate, farvox.compare, farvox.locate, farvox.register, farvox.predict
import farvox.train.run as run
from farvox.evaluate import evaluate_case
from farvox.predict import Predictor
from farvox.register import RegisterOptions
from farvox.train.loop import Training
from farvox import train
messages = {str(warning.message) for warning in record}
assert "the module farvox.train is now farvox.training" in messages
assert "the module farvox.train.run is now farvox.training.fold" in messages
import farvox.comparison.api, farvox.evaluation, farvox.localization, farvox.prediction, farvox.registration
import farvox.training.api, farvox.training.fold, farvox.training.loop
assert Predictor is farvox.Predictor is farvox.prediction.Predictor
assert run is farvox.train.run is farvox.training.fold and Training is farvox.training.loop.Training
assert evaluate_case is farvox.evaluation.evaluate_case
assert RegisterOptions is farvox.registration.RegisterOptions
functions = {"train": farvox.training.api, "evaluate": farvox.evaluation, "compare": farvox.comparison.api,
             "locate": farvox.localization, "register": farvox.registration}
for name, module in functions.items():
    value = getattr(farvox, name)
    assert callable(value) and inspect.signature(value) == inspect.signature(getattr(module, name)), name
assert train is farvox.train and not hasattr(train, "nothing")
try:
    farvox.train("no-such-folder")
except farvox.FarvoxError as error:
    assert "no-such-folder" in str(error)
else:
    raise AssertionError("no error")
"""
    for when in ("first", "after"):
        subprocess.run([sys.executable, "-c", code, when], check=True)
