"""Functions in a separate process: results and errors are returned, a kill is an error, Ctrl-C is forwarded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from farvox.errors import DataError, ResourceError
from farvox.runs.subprocess import run_in_subprocess
from farvox.training.interrupt import graceful_interrupt


def pair(first: int, second: str) -> tuple[int, str, int]:
    return first, second, os.getpid()


def fail(case: str) -> None:
    raise DataError("no such scan", allowed="scans", hint="look", case=case)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_politely(started: str) -> str:
    """Wait for an interrupt, as a training does."""
    with graceful_interrupt() as interrupted:
        Path(started).write_text(str(os.getpid()), encoding="utf-8")
        return "interrupted" if interrupted.wait(60) else "not interrupted"


def test_the_result_comes_from_another_process() -> None:
    first, second, process = run_in_subprocess(pair, 3, "c")
    assert (first, second) == (3, "c")
    assert process != os.getpid()


def test_errors_are_returned_complete_and_a_killed_process_is_one() -> None:
    with pytest.raises(DataError) as caught:
        run_in_subprocess(fail, "a7")
    assert str(caught.value) == "case a7: no such scan; expected: scans; hint: look"
    with pytest.raises(ResourceError, match="by signal 9"):
        run_in_subprocess(die)


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_the_process_ends_when_its_parent_is_interrupted_or_killed(tmp_path: Path, how: str) -> None:
    started = tmp_path / "started"
    script = textwrap.dedent(f"""
        from farvox.runs.subprocess import run_in_subprocess
        from tests.runs.test_subprocess import wait_politely
        if __name__ == "__main__":
            print(run_in_subprocess(wait_politely, {str(started)!r}))
    """)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    first = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while not started.exists() or not started.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "the process did not start its work"
        time.sleep(0.05)
    first.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    out, _ = first.communicate(timeout=60)
    assert out.strip() == ("interrupted" if how == "interrupt" else "")
    child = int(started.read_text(encoding="utf-8"))
    for _ in range(400):
        # A process that has ended is a zombie until its parent waits for it.
        if not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text(
            encoding="utf-8"
        ):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the work went on alone")
