"""A small thread pool that runs kernels without the interpreter lock over blocks of independent tasks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

_BLOCKS_PER_THREAD = 4
_SMALL_WORK = 200_000
# Memory that each thread keeps: 4 million numbers, 32 MB.
_KEPT = 1 << 22
_inside = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def number_of_threads() -> int:
    """Threads that kernels may use: ``PROBSEQ_NUM_THREADS``, else the processors this process may run on.

    Raises
    ------
    ValueError
        if the environment variable is not a positive integer.
    """
    text = os.environ.get("PROBSEQ_NUM_THREADS", "").strip()
    if text:
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"got PROBSEQ_NUM_THREADS={text!r}, expected a positive integer; unset it or write 1.")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def run_blocks(run: Callable[[int, int], Result], n_tasks: int, *, work: float = float("inf")) -> list[Result]:
    """Call ``run(start, stop)`` over consecutive blocks that cover ``range(n_tasks)``; results in the order of blocks.

    Parameters
    ----------
    run
        handles the tasks ``start <= k < stop``; must be safe to call from several threads at once.
    n_tasks
        number of independent tasks.
    work
        rough number of elementary operations in all; small work runs in the calling thread, because waking a thread
        costs some 50 microseconds.
    """
    if n_tasks <= 0:
        return []
    alone = n_tasks == 1 or work < _SMALL_WORK or getattr(_inside, "worker", False)
    threads = 1 if alone else min(number_of_threads(), n_tasks)
    if threads == 1:
        return [run(0, n_tasks)]
    n_blocks = min(n_tasks, threads * _BLOCKS_PER_THREAD)
    bounds = [block * n_tasks // n_blocks for block in range(n_blocks + 1)]
    return list(_executor(number_of_threads()).map(run, bounds[:-1], bounds[1:]))


def scratch(size: int) -> np.ndarray:
    """``size`` numbers (float64) of uninitialised memory that this thread hands out again at its next call.

    Fresh memory costs a page fault every 4 kB, as much time as a fast kernel takes to fill it.
    """
    if size > _KEPT:
        return np.empty(size)
    kept: np.ndarray | None = getattr(_inside, "scratch", None)
    if kept is None or kept.size < size:
        kept = _inside.scratch = np.empty(size)
    return kept[:size]


def _mark_worker() -> None:
    _inside.worker = True


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size != size:
            _pool = ThreadPoolExecutor(size, thread_name_prefix="probseq", initializer=_mark_worker)
            _pool_size = size
        return _pool


def _forget_pool() -> None:
    # The threads of a parent do not exist in a forked child; waiting for them would hang for ever.
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
