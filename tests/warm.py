"""The program in a process of its own that has its libraries loaded already: half of a short command's time.

Processes are forked from one that has imported what commands import and done nothing else. They have their own
arguments, folder, output and exit code, as when the program is started.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

_LIBRARIES = [
    "farvox.cli.app",
    "farvox.training.fold",
    "farvox.prediction",
    "farvox.report",
    "matplotlib.figure",
    "nibabel",
]
_LIBRARIES += ["lightning_fabric", "numba", "torch._dynamo"]


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    return context


def run_warm(
    arguments: list[str], environment: dict[str, str], cwd: Path | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `farvox` with these arguments to its end.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder, name) for name in ("out", "err")]
        process = _server().Process(target=_program, args=(arguments, environment, cwd, written))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["farvox", *arguments], timeout)
        out, err = (path.read_text(encoding="utf-8") for path in written)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(["farvox", *arguments], process.exitcode, out, err)


def _program(arguments: list[str], environment: dict[str, str], cwd: Path | None, written: list[Path]) -> None:
    for number, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["farvox", *arguments]
    from farvox.cli import main

    main()
