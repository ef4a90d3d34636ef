"""Shares work out over as many threads as torch would use, without a second pool of busy threads beside torch's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def share_out(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Call `work` on every item, on `torch.get_num_threads()` threads at most; the first error is raised.

    Inside `work` torch uses one thread and records no gradients. A single item, or thread, is worked on in the caller.
    """
    items = list(items)
    threads = torch.get_num_threads()
    if threads == 1 or len(items) <= 1:
        for item in items:
            work(item)
        return
    inference = torch.is_inference_mode_enabled()

    def work_as_caller(item: T) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(item)

    for future in [_threads(threads).submit(work_as_caller, item) for item in items]:
        future.result()


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size != count:
            ready = threading.Barrier(count + 1)
            _pool = ThreadPoolExecutor(count, "farvox-sampling", _use_one_thread)
            _pool_size = count
            for _ in range(count):
                _pool.submit(ready.wait)
            ready.wait()
            # Setting a thread's number of threads also changes what new threads begin with.
            torch.set_num_threads(count)
        return _pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # first, because a thread that has not asked yet would later take the default again
    torch.set_num_threads(1)


def _forget_pool() -> None:
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork
