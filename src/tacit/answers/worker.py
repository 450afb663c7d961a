"""The process behind the pool: math-verify on pairs of answers, a task's own regex, reasoning-gym. Run as a script.

Builds on math-verify and reasoning-gym, each imported when first asked for. Of this package it needs nothing: it starts
fast and without torch. Why a process: math-verify's own limit is SIGALRM, which works in the main thread alone and does
not interrupt one long C call. A backtracking regex holds the interpreter lock. Here an interval timer on CPU time kills
the process itself, whatever it is doing; what ends past its limit before the timer sees it is refused.

Requests come on standard input as JSON lines, ``{"do", "limit", ...}``; for each, the numbers 0 (begun), 1 and 2 (first
and second answer read) and then ``{"value", "status", "seconds"}`` go to standard output.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import select
import signal
import sys
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

MEMORY_LIMIT = 2 << 30
"""Bytes of address space a worker may map, so that a tower of powers cannot exhaust the machine."""
KEPT_EXPRESSIONS = 256
MAX_NESTING = 12
"""Brackets in brackets; deeper expressions are not read. The cost is exponential in the depth; real answers need 6."""


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
        import sympy
        from math_verify import LatexExtractionConfig, parse, verify

        self._sympy, self._parse, self._verify = sympy, parse, verify
        config = LatexExtractionConfig(boxed_match_priority=0)
        # Units are compared before an answer comes here; left to math-verify, 5 cm would equal 5 m.
        no_units = replace(config.normalization_config, units=False)
        self._config = [replace(config, normalization_config=no_units)]
        self._kept: OrderedDict[str, _Expression] = OrderedDict()

    def expression(self, text: str) -> _Expression:
        found = self._kept.pop(text, None)
        if found is None:
            parsed = [self._complex(part) for part in self._parsed(text)]
            found = _Expression(parsed, self._value(parsed[0]) if parsed else None)
        self._kept[text] = found
        if len(self._kept) > KEPT_EXPRESSIONS:
            self._kept.popitem(last=False)
        return found

    def _parsed(self, text: str) -> list[Any]:
        """The whole text as one expression, [] if it is none."""
        if "\\boxed" in text or not _readable(text):
            return []
        # "first_match": left to itself, parse() falls back on some fraction inside a text that it cannot read.
        return self._parse(  # type: ignore[no-any-return]
            "\\boxed{" + text + "}",
            extraction_config=self._config,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
        )

    def _complex(self, expression: Any) -> Any:
        """The expression with i as the imaginary unit (an index of a sum is not free, and stays)."""
        if not isinstance(expression, self._sympy.Expr):
            return expression
        return expression.subs({one: self._sympy.I for one in expression.free_symbols if one.name == "i"})

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


def _readable(text: str) -> bool:
    """Whether brackets are not too deep and braces balanced (or the box would end early, before the rest)."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    open_braces = 0
    for char in text.replace("\\\\", "").replace("\\{", "").replace("\\}", ""):
        open_braces += (char == "{") - (char == "}")
        if open_braces < 0:
            return False
    return deepest <= MAX_NESTING and open_braces == 0


def _search(pattern: str, text: str) -> str | None:
    last = None
    for match in re.finditer(pattern, text):
        found = match.group(1 if match.re.groups else 0)
        if found is not None and found.strip():
            last = found
    return last


def _lines(parent: int) -> Iterator[dict[str, Any]]:
    """Requests, until the pipe closes or the parent is gone (another child may hold the pipe's other end open)."""
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


# What Python must not contain for ``eval`` to do nothing but compute: names with underscores, attributes, calls of
# anything but functions of mathematics, and ways to hide them.
_ARITHMETIC = ("sin", "cos", "tan", "sec", "csc", "cot", "exp", "log", "ln", "sqrt", "abs", "Abs")
_NOT_ARITHMETIC = re.compile(
    rf"__|[\\#]|[^\x00-\x7f]|\.\s*[A-Za-z_]|[\])}}\"']\s*\(|(?<!\w)(?!(?:{'|'.join(_ARITHMETIC)})\s*\()[A-Za-z_]\w*\s*\("
    r"|\b(?:lambda|import)\b"
)
_EVALUATES = re.compile(r"\b(?:eval|exec|sympify)\(|\bsp\w*\.parse_expr|sympy_parser")


class _Gym:
    """reasoning-gym's questions and scores. Here, because some questions hang on the hash seed, and some scorers
    evaluate an answer as Python: they get only what can do nothing but compute, within the limit."""

    def __init__(self) -> None:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        self._create, self._known = reasoning_gym.create_dataset, DATASETS
        self._kept: dict[str, Any] = {}

    def do(self, job: dict[str, Any]) -> Any:
        if job["call"] == "names":
            return sorted(self._known)
        try:
            entry = self._dataset(job)[job["index"]]
        except Exception as error:  # of any data set's own checks
            return {"error": f"{type(error).__name__}: {error}"}
        if job["call"] == "ask":
            return {"question": entry["question"], "answer": entry["answer"]}
        return {"answer": entry["answer"], "score": float(self._score(self._dataset(job), job["said"], entry))}

    def _dataset(self, job: dict[str, Any]) -> Any:
        key = json.dumps([job["name"], job["config"], job["seed"], job["size"]], sort_keys=True)
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = self._create(job["name"], seed=job["seed"], size=job["size"], **job["config"])
        return self._kept[key]

    def _score(self, dataset: Any, said: str, entry: dict[str, Any]) -> float:
        module = sys.modules[type(dataset).__module__]
        if _EVALUATES.search(inspect.getsource(module)) and _NOT_ARITHMETIC.search(said):
            return 0.0
        try:
            return float(dataset.score_answer(said, entry))
        except Exception:  # an answer that a data set cannot read
            return 0.0


def main() -> None:
    """Serve jobs from standard input; progress and results go to standard output, one JSON line each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the timer kills, also in the middle of one long C call
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A RecursionError half-way leaves the parser's shared tables broken, and later answers are misread.
    sys.setrecursionlimit(20_000)
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like a reply

    def say(line: Any) -> None:
        os.write(replies, json.dumps(line).encode() + b"\n")

    comparer: _Comparer | None = None
    gym: _Gym | None = None
    for job in _lines(int(sys.argv[1])):
        try:
            if job["do"] == "compare" and comparer is None:
                comparer = _Comparer()
            if job["do"] == "gym" and gym is None:
                gym = _Gym()
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
            elif job["do"] == "gym":
                assert gym is not None
                value = gym.do(job)
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
        seconds, limit = time.process_time() - started, job["limit"]
        if seconds > limit:  # the timer looks only so often
            say({"value": None, "status": "timeout", "seconds": limit})
        else:
            say({"value": value, "status": "done", "seconds": seconds})


if __name__ == "__main__":
    main()
