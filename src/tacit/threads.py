"""Independent pieces of work on the threads that a process was given, for models that run on the CPU.

Builds on nothing but torch. Splitting every product of a small model over two threads gains little; giving each thread
problems of its own gains nearly all. PyTorch's products and our compiled loops let other threads run, so plain Python
threads do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_POOLS: dict[int, ThreadPoolExecutor] = {}
_LOCK = threading.Lock()


def available() -> int:
    """Threads that this thread may use for its products (``torch.set_num_threads``)."""
    return torch.get_num_threads()


def run(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of ``tasks``, on as many threads as are available, each of which then takes one for its products.

    The first exception is raised once all have ended.
    """
    threads = min(available(), len(tasks))
    if threads < 2:
        return [task() for task in tasks]
    futures = [_pool(available()).submit(task) for task in tasks]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _pool(threads: int) -> ThreadPoolExecutor:
    with _LOCK:
        if threads not in _POOLS:
            started = threading.Barrier(threads + 1)

            def begin() -> None:
                torch.get_num_threads()  # which would else take the process's number later on
                torch.set_num_threads(1)
                started.wait()

            _POOLS[threads] = pool = ThreadPoolExecutor(threads, "tacit-work", initializer=begin)
            for _ in range(threads):
                pool.submit(lambda: None)
            started.wait()
            # What a thread sets is what threads that come later begin with.
            torch.set_num_threads(threads)
        return _POOLS[threads]
