"""Sparse sampling among threads and forks: one's own, the caller's, and those of a process that forks meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from farvox.ops import sparse_conv
from farvox.ops.sparse_sample import _cpu_product
from farvox.ops.threads import parallel_for
from tests.ops.sampling import conv_case, run_conv


def _in_a_child(result: Any) -> None:
    result.put(sparse_conv(*conv_case((12, 8, 16), 2, False), grid=(3, 4, 4), groups=2).sum().item())


def test_works_after_a_fork() -> None:
    expected = sparse_conv(*conv_case((12, 8, 16), 2, False), grid=(3, 4, 4), groups=2).sum().item()
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    child = context.Process(target=_in_a_child, args=(result,))
    child.start()
    assert result.get(timeout=60) == pytest.approx(expected, rel=1e-5)
    child.join()


def _hold_the_lock(started: threading.Event, done: threading.Event) -> None:
    with _cpu_product._free_lock:
        started.set()
        done.wait(60)


def test_a_fork_in_the_middle_of_another_threads_call() -> None:
    started, done = threading.Event(), threading.Event()
    other = threading.Thread(target=_hold_the_lock, args=(started, done))
    other.start()
    started.wait()
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    child = context.Process(target=_in_a_child, args=(result,))
    child.start()
    done.set()
    other.join()
    assert result.get(timeout=60) == pytest.approx(
        sparse_conv(*conv_case((12, 8, 16), 2, False), grid=(3, 4, 4), groups=2).sum().item(), rel=1e-5
    )
    child.join(60)
    assert child.exitcode == 0


def test_an_error_in_a_thread_reaches_the_caller_when_all_have_stopped() -> None:
    finished = []

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("first")
        time.sleep(0.05)
        finished.append(item)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="first"):
            parallel_for(work, range(4))
    finally:
        torch.set_num_threads(before)
    assert sorted(finished) == [1, 2, 3]


def test_works_from_several_threads() -> None:
    cases = [conv_case((12, 8, 16), channels, pairs) for channels in (1, 2, 3, 4) for pairs in (False, True)]
    alone = [run_conv("cpu", torch.float32, case, {"grid": (3, 4, 4)}, 2) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: run_conv("cpu", torch.float32, case, {"grid": (3, 4, 4)}, 2), cases))
    torch.testing.assert_close(together, alone)
