"""A piece of work in a process of its own: its peak memory is its own, and where it is killed the rest goes on."""

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
from typing import Any, TypeVar

from farvox.errors import FarvoxError, ResourceError

Answer = TypeVar("Answer")


def run_in_subprocess(work: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call `work` in a fresh process and wait for its answer; Ctrl-C (or a polite kill) is handed on to it.

    Args:
        work: A function at the top of a module.
        *arguments: Its arguments, which must pickle like its answer.

    Returns:
        What it returned.

    Raises:
        ResourceError: The process was ended from outside, as systems do that run out of memory.
        KeyboardInterrupt: It was ended by Ctrl-C.
        Exception: Whatever `work` raised.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, work, arguments))
    child.start()
    sender.close()
    with _forward_signals(child.pid or 0) as asked:
        try:
            done, answer = receiver.recv()
        except EOFError:
            done, answer = False, None
        child.join()
    if done:
        return answer
    if isinstance(answer, BaseException):
        raise answer
    if asked.is_set():
        raise KeyboardInterrupt
    code = child.exitcode or 0
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    raise ResourceError(f"the process was ended {how}", hint="see whether memory sufficed; smaller patches need less")


def _answer(
    sender: multiprocessing.connection.Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """The fresh process: work, then send (True, answer) or (False, error)."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that Ctrl-C at the terminal comes once, through the first process
    threading.Thread(target=_terminate_with_parent, daemon=True).start()
    try:
        sender.send((True, work(*arguments)))
    except BaseException as error:
        if not isinstance(error, FarvoxError | KeyboardInterrupt):
            traceback.print_exc()
        sender.send((False, error))


def _terminate_with_parent() -> None:
    """Stop politely when the process that waits for the answer is gone."""
    first = multiprocessing.parent_process()
    if first is not None:
        multiprocessing.connection.wait([first.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _forward_signals(child: int) -> Iterator[threading.Event]:
    """Signals that ask to stop go to the child; the event tells whether there was one."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread() or not hasattr(os, "setsid"):
        yield asked
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        asked.set()
        with suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
