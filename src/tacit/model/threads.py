"""Independent pieces of work on the threads that a process was given, for models that run on the CPU.

Builds on nothing but torch. Splitting every product of a small model over two threads gains little; giving each thread
problems of its own gains nearly all. PyTorch's products and our compiled loops let other threads run, so plain Python
threads do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass
class _Process:
    """What holds for all of it."""

    used: int | None = None
    pools: dict[int, ThreadPoolExecutor] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_PROCESS = _Process()
_PART = threading.local()


def use(count: int | None) -> None:
    """Divide work over so many threads, however many a product may take; None: as many as a product may take.

    Threads with work of their own bear a busy machine well. Those that share a product wait for the slowest at every
    one of them.
    """
    _PROCESS.used = count


def cores() -> int:
    """Processors that this process may run on, or fewer where OMP_NUM_THREADS says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available() -> int:
    """Threads that work is divided over, here: one within work that is a part already."""
    if getattr(_PART, "within", False):
        return 1
    return torch.get_num_threads() if _PROCESS.used is None else _PROCESS.used


def run(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of ``tasks``, on as many threads as are available, each of which then takes one for its products.

    The first exception is raised once all have ended.
    """
    threads = available()
    if min(threads, len(tasks)) < 2:
        return [task() for task in tasks]
    futures = [_pool(threads).submit(task) for task in tasks]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _pool(threads: int) -> ThreadPoolExecutor:
    with _PROCESS.lock:
        if threads not in _PROCESS.pools:
            started = threading.Barrier(threads + 1)
            before = torch.get_num_threads()

            def begin() -> None:
                _PART.within = True
                torch.get_num_threads()  # which would else take the process's number later on
                torch.set_num_threads(1)
                started.wait()

            _PROCESS.pools[threads] = pool = ThreadPoolExecutor(threads, "tacit-work", initializer=begin)
            for _ in range(threads):
                pool.submit(lambda: None)
            started.wait()
            # What a thread sets is what threads that come later begin with.
            torch.set_num_threads(before)
        return _PROCESS.pools[threads]
