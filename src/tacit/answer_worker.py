"""A killable process for the two jobs that may never end: math-verify on a pair of answers, and a task's own regex.

Builds on math-verify (in the worker only) and errors. This file is both ends of one pipe: run as a script it is the
worker; imported it is the small pool that starts workers when first needed, gives each job a limit, kills and replaces
what overruns, and never waits for ever.

Why a process: math-verify's own limit is SIGALRM, which works in the main thread alone and does not interrupt one long
C call, and a backtracking regex holds the interpreter lock. Why ``subprocess`` and not ``multiprocessing``: the parent
is often multi-threaded (torch, a server) and must not be forked; a script run by path imports neither torch nor the
parent's main module. A worker costs about 0.03 s to start, and about 0.6 s more on its first pair (SymPy's import),
once per process; a later pair costs 1-60 ms, mostly LaTeX parsing.

The limit is CPU time of the worker (an interval timer whose signal kills it), so a busy machine does not change which
answers count as equal; a wall-clock limit of half as much again, plus half a second, stands
behind it.
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
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_WORKERS = 2
START_LIMIT = 60.0
"""Seconds of wall clock a worker may take to start and import, on the slowest machine we care about."""
MEMORY_LIMIT = 2 << 30
"""Bytes of address space a worker may map, so that a tower of powers cannot exhaust the machine."""
KEPT_EXPRESSIONS = 256


# ---------------------------------------------------------------------------------------------- the parent's end


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

    def __init__(self) -> None:
        # -P: the script's folder must not come first on the path, its file names would shadow other packages'.
        # A fixed hash seed: SymPy's orderings, and so its verdicts on odd input, then repeat from run to run.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
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
    """At most ``MAX_WORKERS`` workers, started on demand, the most recently used one first."""

    def __init__(self) -> None:
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
                    raise _unusable(reply.value)
                return reply
            return Reply(None, "crash", stage, 0.0)

    def _take(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return _Worker()
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
        self.__init__()  # type: ignore[misc]


def _unusable(why: str) -> Exception:
    from tacit.errors import ConfigError  # not at the top: the worker runs this file as a script, without the package

    return ConfigError(f"math-verify cannot be imported, so answers cannot be compared ({why}); reinstall tacit.")


pool = Pool()
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)


def compare(a: str, b: str, limit: float) -> Reply:
    """Whether math-verify takes two LaTeX expressions for equal, in both directions."""
    return pool.run({"do": "compare", "a": a, "b": b}, limit)


def search(pattern: str, text: str, limit: float) -> Reply:
    """Last match of a regular expression: its first group, or all of it where it has no group; None without one."""
    return pool.run({"do": "search", "pattern": pattern, "text": text}, limit)


# ---------------------------------------------------------------------------------------------- the worker's end


@dataclass
class _Expression:
    """A parsed answer, and its value at fixed values of its variables where it has one."""

    parsed: list[Any]
    value: Any


class _Comparer:
    """math-verify in both directions, behind a numeric check that it lacks.

    math-verify calls numbers equal that differ by less than some absolute epsilon (1/2^99 and 1/2^98, e^-50 and
    e^-51). So expressions are also evaluated to 30 digits, variables replaced by fixed values, and what differs
    relatively is different. That veto is also the fast way out: most pairs never reach a symbolic proof.
    """

    def __init__(self) -> None:
        import dataclasses

        import sympy
        from math_verify import LatexExtractionConfig, parse, verify

        self._sympy, self._parse, self._verify = sympy, parse, verify
        config = LatexExtractionConfig(boxed_match_priority=0)
        # Units are compared before an answer comes here; left to math-verify, 5 cm would equal 5 m.
        no_units = dataclasses.replace(config.normalization_config, units=False)
        self._config = [dataclasses.replace(config, normalization_config=no_units)]
        self._kept: OrderedDict[str, _Expression] = OrderedDict()

    def expression(self, text: str) -> _Expression:
        found = self._kept.pop(text, None)
        if found is None:
            parsed = self._parse(
                "\\boxed{" + text + "}",
                extraction_config=self._config,
                fallback_mode="no_fallback",
                parsing_timeout=None,
            )
            found = _Expression(parsed, self._value(parsed[0]) if parsed else None)
        self._kept[text] = found
        if len(self._kept) > KEPT_EXPRESSIONS:
            self._kept.popitem(last=False)
        return found

    def _value(self, expression: Any) -> Any:
        sympy = self._sympy
        if not isinstance(expression, sympy.Expr):
            return None
        try:
            # A variable's value hangs on its name alone, so that both sides of a pair see the same one.
            names = {symbol: zlib.crc32(symbol.name.encode()) for symbol in expression.free_symbols}
            point = {symbol: sympy.Rational(code % 9973 + 5000, 9973) for symbol, code in names.items()}
            value = expression.xreplace(point).evalf(30)
            parts = value.as_real_imag()
        except Exception:
            return None
        if not all(part.is_Float or part.is_Integer for part in parts):
            return None
        if any(part.is_Float and part._prec < 50 for part in parts):
            return None  # too few digits survived to say anything
        return parts, 1e-13 if expression.atoms(sympy.Float) else 1e-20

    def _differ(self, a: Any, b: Any) -> bool:
        if a is None or b is None:
            return False
        (a_parts, a_error), (b_parts, b_error) = a, b
        size = max(*(abs(part) for part in a_parts), *(abs(part) for part in b_parts))
        gap = max(abs(x - y) for x, y in zip(a_parts, b_parts, strict=True))
        return bool(gap > size * max(a_error, b_error))

    def same(self, a: _Expression, b: _Expression) -> bool:
        if not a.parsed or not b.parsed or self._differ(a.value, b.value):
            return False
        return all(bool(self._verify(x.parsed, y.parsed, timeout_seconds=None)) for x, y in ((a, b), (b, a)))


def _search(pattern: str, text: str) -> str | None:
    import re

    last = None
    for match in re.finditer(pattern, text):
        found = match.group(1 if match.re.groups else 0)
        if found is not None and found.strip():
            last = found
    return last


def _lines(parent: int) -> Any:
    """Requests, until the pipe closes or the parent is gone (another child may hold the pipe's other end open)."""
    import select

    buffer = b""
    while True:
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            yield json.loads(line)
        if not select.select([0], [], [], 5.0)[0]:
            if os.getppid() != parent:
                return
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        buffer += chunk


def main() -> None:
    """Serve jobs from standard input; progress and results go to standard output, one JSON line each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the timer kills, also in the middle of one long C call
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like a reply

    def say(line: Any) -> None:
        os.write(replies, json.dumps(line).encode() + b"\n")

    comparer: _Comparer | None = None
    for job in _lines(int(sys.argv[1])):
        started = 0.0
        try:
            if job["do"] == "compare" and comparer is None:
                comparer = _Comparer()
        except ImportError as error:
            say({"value": str(error), "status": "unusable", "seconds": 0.0})
            continue
        say(0)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, job["limit"])
        value: Any
        try:
            if job["do"] == "search":
                value = _search(job["pattern"], job["text"])
            else:
                assert comparer is not None
                a = comparer.expression(job["a"])
                say(1)
                b = comparer.expression(job["b"])
                say(2)
                value = comparer.same(a, b)
        except Exception:  # MemoryError and RecursionError too: an answer nobody can read equals nothing
            value = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        say({"value": value, "status": "done", "seconds": time.process_time() - started})


if __name__ == "__main__":
    main()
