"""Run a function in a separate process: its peak memory can be measured and a crash does not stop the parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ParamSpec, TypeVar, cast

from farvox.errors import FarvoxError, ResourceError

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def run_in_subprocess(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **options: _Arguments.kwargs
) -> _Result:
    """Call a function in a new process and wait for its result. SIGINT and SIGTERM are forwarded to it.

    Args:
        function: A function at module level.
        *arguments: Its arguments; they and the result must be picklable.
        **options: Its keyword arguments.

    Returns:
        The result of the function.

    Raises:
        ResourceError: The process was killed, for example because the system ran out of memory.
        KeyboardInterrupt: The process was interrupted by Ctrl-C.
        Exception: Any exception of the function.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(sender, function, arguments, options))
    child.start()
    sender.close()
    with _forward_signals(child.pid or 0) as interrupted:
        try:
            succeeded, result = receiver.recv()
        except EOFError:
            succeeded, result = False, None
        child.join()
    if succeeded:
        return cast(_Result, result)
    if isinstance(result, BaseException):
        raise result
    if interrupted.is_set():
        raise KeyboardInterrupt
    code = child.exitcode or 0
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    raise ResourceError(f"the process was ended {how}", hint="check the memory; smaller patches need less")


def _run(
    sender: multiprocessing.connection.Connection,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    options: dict[str, object],
) -> None:
    """In the new process: call the function, and send (True, result) or (False, exception)."""
    if hasattr(os, "setsid"):
        os.setsid()  # the terminal sends Ctrl-C to the parent only, which forwards it
    threading.Thread(target=_terminate_with_parent, daemon=True).start()
    try:
        sender.send((True, function(*arguments, **options)))
    except BaseException as error:
        if not isinstance(error, FarvoxError | KeyboardInterrupt):
            traceback.print_exc()
        sender.send((False, error))


def _terminate_with_parent() -> None:
    """Send SIGTERM to this process when the parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _forward_signals(child: int) -> Iterator[threading.Event]:
    """Forward SIGINT and SIGTERM to the child; the event is set when one arrives."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread() or not hasattr(os, "setsid"):
        yield interrupted
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        with suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
