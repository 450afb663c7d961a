"""The sandbox as its users see it: what a function of a candidate program gives, and whether it passes tests.

Builds on the pool (killable processes), and on the zygote, limits and values beside it. Candidates are text from a
model, so hostile by assumption: each runs in a process of its own, for ``CPU`` seconds. It can compute and write to one
pipe, and nothing else (limits says how). Nothing that it sends is ever unpickled or evaluated; results are compared by
their text here. The same program and calls give the same results, so they are kept.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tacit.answers.pool import Pool
from tacit.answers.sandbox import values
from tacit.errors import ConfigError

CPU = 2
"""CPU seconds of one candidate, all its calls together."""
CPU_TESTS = 5
WALL = 10
"""Wall-clock seconds for each CPU second: for busy machines, since nothing can sleep in there."""
FAILED = "error"
"""The result of a call that raised, or that a limit ended."""
_KEPT = 5000

_ZYGOTE = Path(__file__).resolve().with_name("zygote.py")
# -S -s: no packages of this environment, of whose variables it has the one by which some Pythons find their library. A
# fixed hash seed: sets in one order, from run to run.
_COMMAND = [sys.executable, "-S", "-s", "-B", "-X", "utf8", str(_ZYGOTE)]
_LIBRARY = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
pool = Pool(_COMMAND, lambda: {**_LIBRARY, "PYTHONHASHSEED": "0"}, cwd="/", start_new_session=True)
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)

T = TypeVar("T")

_results: OrderedDict[str, Any] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Program:
    """A candidate: its text, the function that is called, and what is defined before it."""

    code: str
    name: str
    prelude: str = ""


@cache
def check() -> tuple[str, ...]:
    """The walls that stand here besides those that must.

    Raises:
        ConfigError: one that must stand cannot; the message says which.
    """
    if sys.platform != "linux":
        raise ConfigError(f"candidate programs run on Linux alone, whose kernel confines them; this is {sys.platform}")
    from tacit.answers.sandbox import limits

    if not limits.known_machine():
        raise ConfigError("candidate programs run on 64-bit x86 and ARM alone, whose system calls the filter knows")
    reply = pool.run({}, 30.0)
    missing, layers = reply.value or ["a process that runs them", []]
    if missing:
        raise ConfigError(f"candidate programs cannot be confined on this machine, which lacks {missing}")
    return tuple(layers)


def results(program: Program, calls: Sequence[str]) -> tuple[str, ...]:
    """Per call, a canonical text of what the function gives, or ``FAILED``; calls are texts of ``call``."""

    def read(lines: list[str]) -> tuple[str, ...]:
        found = [_result(line) for line in lines[1 : len(calls) + 1]]
        return (*found, *[FAILED] * (len(calls) - len(found)))

    return _run(program, {"calls": list(calls)}, CPU, read) if calls else ()


def passes(program: Program, tests: str) -> bool:
    """Whether the tests (Python, in which the function has its name and ``candidate``) run to their end."""
    return _run(program, {"tests": tests}, CPU_TESTS, lambda lines: lines == ["true"])


def call(arguments: Sequence[Any], named: dict[str, Any]) -> str:
    """The text of a call with these arguments.

    Raises:
        values.Unsayable: they are too large, or no plain values.
    """
    text = values.encode([None, list(arguments), named])
    if '["object"' in text:
        raise values.Unsayable("an argument is no plain value")
    return text


def _run(program: Program, what: dict[str, Any], cpu: int, read: Callable[[list[str]], T]) -> T:
    """What is read in the lines of a program's process; kept, for the programs used last."""
    job = {"prelude": program.prelude, "code": program.code, "name": program.name, **what, "cpu": cpu}
    key = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
    with _lock:
        if key in _results:
            _results.move_to_end(key)
            return _results[key]  # type: ignore[no-any-return]
    check()
    wall = cpu * WALL
    reply = pool.run({**job, "wall": wall}, wall)
    found = read(reply.value[0] if reply.value else [])
    if reply.value:
        with _lock:
            _results[key] = found
            if len(_results) > _KEPT:
                _results.popitem(last=False)
    return found


def _result(line: str) -> str:
    try:
        tag, held = json.loads(line)
        return values.canonical(held) if tag == "value" else FAILED
    except (values.Unsayable, ValueError, TypeError, RecursionError):
        return FAILED
