"""The answer workers as their users see them: ``compare`` and ``search``, each within a limit, never a hang.

Builds on answer_worker (the script each worker runs) and errors. Workers start when first needed, at most
``MAX_WORKERS`` at once; any thread may call. One that reaches its limit is dead (its timer killed it, or we do), one
that died of anything else is replaced once and the job repeated; all die with this process, and a forked child leaves
its parent's workers alone and starts its own.

Why ``subprocess`` and not ``multiprocessing``: this process is often multi-threaded (torch, a server) and must not be
forked; a script run by path imports neither torch nor this process's main module. A worker costs about 0.05 s to start,
and about 0.6 s more at its first pair (SymPy's import), once; a later pair costs 1-100 ms, mostly LaTeX parsing.

The limit is CPU time of the worker: a busy machine does not change which answers count as equal; a wall-clock limit of
half as much again, plus half a second, stands behind it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.answers import worker as answer_worker
from tacit.errors import ConfigError

MAX_WORKERS = 2
START_LIMIT = 60.0
"""Seconds of wall clock a worker may take to start and import, on the slowest machine we care about."""


@dataclass(frozen=True)
class Reply:
    """What came of one job.

    Attributes:
        value: the job's result; None unless ``status`` is "done".
        status: "done", "timeout" (the limit was reached) or "crash" (two workers in a row died of something else).
        stage: how far it came: 0, then 1 when the first answer was understood, 2 when the second was.
        seconds: CPU seconds spent, or the limit if it was reached.
    """

    value: Any
    status: str
    stage: int
    seconds: float


class _Dead(Exception):
    """The worker's pipe closed, or its wall-clock limit passed; ``timeout`` says which."""

    def __init__(self, timeout: bool, stage: int) -> None:
        self.timeout = timeout
        self.stage = stage


class _Worker:
    """One process and its two pipes. Used by one thread at a time."""

    def __init__(self, command: list[str], **how: Any) -> None:
        self._process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            **how,
        )
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: dict[str, Any], limit: float) -> Reply:
        """Send a job and read until its result. Raises ``_Dead`` when no result will come."""
        stage = -1
        deadline = time.monotonic() + START_LIMIT
        try:
            assert self._process.stdin is not None
            data = json.dumps({**job, "limit": limit}).encode() + b"\n"
            while data:
                data = data[self._process.stdin.write(data) or 0 :]
            while True:
                line = json.loads(self._line(deadline))
                if isinstance(line, int):
                    stage = line
                    if stage == 0:  # imports are done and the timer is armed
                        deadline = time.monotonic() + 1.5 * limit + 0.5
                else:
                    return Reply(line["value"], line["status"], max(stage, 0), line["seconds"])
        except TimeoutError:
            raise _Dead(True, max(stage, 0)) from None
        except (OSError, ValueError):
            killed_by_timer = self._exit_code() == -signal.SIGPROF
            raise _Dead(killed_by_timer, max(stage, 0)) from None

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise OSError("the worker closed its pipe")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _exit_code(self) -> int | None:
        try:
            return self._process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        self.drop()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(5)

    def drop(self) -> None:
        """Close this end without touching the process (after a fork it belongs to the parent)."""
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Pool:
    """At most ``MAX_WORKERS`` workers, started on demand, the most recently used one first.

    Args:
        command: starts a worker, which is told this process's id last.
        env: gives a worker's environment when it starts.
        how: arguments of ``subprocess.Popen``.
    """

    def __init__(self, command: list[str], env: Callable[[], dict[str, str]], **how: Any) -> None:
        self._command, self._env, self._how = command, env, how
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_WORKERS)

    def pids(self) -> list[int]:
        """Process ids of the workers that wait for a job."""
        with self._lock:
            return [worker.pid for worker in self._idle]

    def run(self, job: dict[str, Any], limit: float) -> Reply:
        """Run a job within ``limit`` CPU seconds; a worker that died of anything but the limit is replaced once."""
        with self._slots:
            stage = 0
            for _ in range(2):
                worker = self._take()
                try:
                    reply = worker.run(job, limit)
                except _Dead as dead:
                    worker.kill()
                    if dead.timeout:
                        return Reply(None, "timeout", dead.stage, limit)
                    stage = dead.stage
                    continue
                except BaseException:  # an interrupt: the pipe holds half a conversation
                    worker.kill()
                    raise
                with self._lock:
                    self._idle.append(worker)
                if reply.status == "unusable":
                    raise ConfigError(f"math-verify cannot be imported: {reply.value}; reinstall tacit.")
                return reply
            return Reply(None, "crash", stage, 0.0)

    def _take(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return _Worker(self._command, env=self._env(), **self._how)
            if worker.alive():
                return worker
            worker.kill()

    def close(self) -> None:
        """Kill the waiting workers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def forget(self) -> None:
        """In a forked child: leave the workers, and locks that a lost thread may hold, to the parent."""
        for worker in self._idle:
            worker.drop()
        self.__init__(self._command, self._env, **self._how)  # type: ignore[misc]


# -P: the script's folder must not come first on the path, its file names would shadow other packages'.
# A fixed hash seed: SymPy's orderings, and so its verdicts on odd input, then repeat from run to run.
pool = Pool(
    [sys.executable, "-P", str(Path(answer_worker.__file__).resolve())],
    lambda: {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
)
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)


def compare(a: str, b: str, limit: float) -> Reply:
    """Whether math-verify takes two LaTeX expressions for equal, in both directions."""
    return pool.run({"do": "compare", "a": a, "b": b}, limit)


def search(pattern: str, text: str, limit: float) -> Reply:
    """Last match of a regular expression: its first group, or all of it where it has no group; None without one."""
    return pool.run({"do": "search", "pattern": pattern, "text": text}, limit)


def gym(limit: float, **job: Any) -> Reply:
    """What the library reasoning-gym says; see ``_Gym`` in the worker."""
    return pool.run({"do": "gym", **job}, limit)
