"""Parallel loops on as many threads as PyTorch uses, without oversubscribing the processor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}
_pool_lock = threading.Lock()


def parallel_for(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Call `work` on every item, on at most `torch.get_num_threads()` threads; the first error is raised.

    Inside `work` PyTorch uses one thread and records no gradients. A single item is processed in the calling thread.
    """
    items = list(items)
    threads = torch.get_num_threads()
    if threads == 1 or len(items) <= 1:
        with torch.no_grad():
            for item in items:
                work(item)
        return
    inference = torch.is_inference_mode_enabled()

    def work_as_caller(item: T) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(item)

    pool = _threads(threads)
    futures = [pool.submit(work_as_caller, item) for item in items]
    wait(futures)
    for future in futures:
        future.result()


def split_evenly(count: int, parts: int) -> list[range]:
    """The numbers below `count` in consecutive ranges whose lengths differ by at most one; without empty ranges."""
    cuts = [count * part // parts for part in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(cuts) if a < b]


def _threads(count: int) -> ThreadPoolExecutor:
    with _pool_lock:
        if count not in _pools:
            ready = threading.Barrier(count + 1)
            pool = ThreadPoolExecutor(count, "farvox", _use_one_thread)
            for _ in range(count):
                pool.submit(ready.wait)
            ready.wait()
            # Setting the number of threads of a thread also changes the default of new threads.
            torch.set_num_threads(count)
            _pools[count] = pool
        return _pools[count]


def _use_one_thread() -> None:
    torch.get_num_threads()  # first, because the default would be set again at the first use in this thread
    torch.set_num_threads(1)


def _forget_pools() -> None:
    global _pool_lock
    _pool_lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)  # threads do not survive a fork
