"""The process that forks candidates: one child per candidate, confined before a line of it is read. Run as a script.

Builds on limits and values beside it, and on nothing of this package, so that it starts fast. With "calls", a child
says what one function gives. With "tests", these run in a second child, as confined as the first. It has of the
candidate only what comes through a pipe: a candidate cannot reach the tests, their verdict or ``==``.

Jobs come on standard input as JSON lines ``{"prelude", "code", "name", "calls" | "tests", "cpu", "wall"}``; for each, 0
and then ``{"value", "status", "seconds"}`` go to standard output. ``value`` is ``[lines that a child wrote, how it
ended]``: bytes of an untrusted process, passed on unread and never more than ``OUTPUT`` of them.
"""

from __future__ import annotations

import ast
import builtins
import errno
import gc
import importlib
import io
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import limits
import values

OUTPUT = 1 << 20
"""Most bytes that are read from one child."""
PRINTED = 4000
"""Characters of a candidate's printing that are kept."""
MODULES = (
    "abc array base64 binascii bisect builtins calendar cmath collections collections.abc contextlib copy dataclasses "
    "datetime decimal enum fractions functools hashlib heapq html io itertools json keyword locale math numbers "
    "operator queue random re statistics string struct sys textwrap threading time timeit traceback types typing "
    "unicodedata uuid warnings zlib"
).split()
"""What a candidate can import: no other file can be opened then."""


class Printed(io.TextIOBase):
    """Standard output of a candidate: its beginning is kept, the rest is gone."""

    def __init__(self) -> None:
        self.kept = ""

    def write(self, text: str) -> int:
        if len(self.kept) < PRINTED:
            self.kept += text[: PRINTED - len(self.kept)]
        return len(text)


class Lines:
    """Lines that another child writes into a pipe, each of bounded length."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def __iter__(self) -> Iterator[str]:
        while True:
            while b"\n" not in self._buffer:
                chunk = os.read(self._descriptor, 65536)
                if not chunk or len(self._buffer) > OUTPUT:
                    return
                self._buffer += chunk
            line, self._buffer = self._buffer.split(b"\n", 1)
            yield line.decode("ascii", "replace")


def say(descriptor: int, line: Any) -> None:
    """Write a JSON line."""
    send(descriptor, json.dumps(line))


def send(descriptor: int, line: str) -> None:
    """Write a line."""
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def candidate(job: dict[str, Any], calls: Iterator[str], out: int) -> None:
    """Define a candidate's functions and call them: first a line with the names that it defines, then one per call."""
    names: dict[str, Any] = {"__name__": "candidate"}
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), Printed(), Printed()
    try:
        for part in (job["prelude"], job["code"]):
            exec(compile(part, "<candidate>", "exec"), names)
    except BaseException as error:
        return say(out, ["error", type(error).__name__])
    say(out, ["names", [name for name, value in names.items() if callable(value)]])
    for call in calls:
        name, arguments, named = values.decode(call)
        random.seed(0)
        sys.stdout = printed = Printed()
        try:
            value = names[name or job["name"]](*arguments, **named)
            if value is None and (printed.kept or values.encode([name, arguments, named]) != call):
                value = ["None", arguments, printed.kept]  # it prints, or changes what it was given
            line = ["value", values.encode(value)]
        except BaseException as error:
            line = ["error", type(error).__name__]
        say(out, line)
    return None


def test(job: dict[str, Any], tests: bytes, replies: Iterator[str], ask: int, out: int) -> None:
    """Run the tests of a candidate that lives in another process."""
    tag, defined = json.loads(next(replies))
    if tag != "names" or job["name"] not in defined:
        return say(out, False)

    def proxy(name: str) -> Callable[..., Any]:
        def function(*arguments: Any, **named: Any) -> Any:
            send(ask, values.encode([name, list(arguments), named]))
            tag, held = json.loads(next(replies, '["error", "EOFError"]'))
            if tag != "value":
                raise values.exception(held)
            return values.decode(held)

        return function

    # A candidate's helpers are there for tests that use them; it has no say in what "abs" and "all" mean to a test.
    names: dict[str, Any] = {
        name: proxy(name) for name in defined if isinstance(name, str) and not hasattr(builtins, name)
    }
    wanted = proxy(job["name"])
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), Printed(), Printed()
    try:
        exec(compile(job["prelude"], "<prelude>", "exec"), names)
        names |= {job["name"]: wanted, "candidate": wanted, "__name__": "tests"}
        exec(compile(tests, "<tests>", "exec"), names)
    except BaseException:  # a failed assertion, an exit, or a candidate that is gone
        return say(out, False)
    return say(out, True)


def child(job: dict[str, Any], keep: list[int], null: int, work: Callable[[], None]) -> int:
    """Fork a confined process that does this work and ends; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        limits.confine(job["cpu"], keep, null)
        work()
        code = 0
    finally:  # whatever a candidate raises, there is one process that goes on, and it is not this one
        os._exit(code)


def collect(pids: list[int], out: int, deadline: float) -> tuple[list[str], str]:
    """What comes from a pipe until it closes, too much comes or time is up; then nobody of them lives."""
    data, end = b"", "time"
    while (left := deadline - time.monotonic()) > 0:
        if select.select([out], [], [], left)[0]:
            chunk = os.read(out, 65536)
            data += chunk
            if not chunk or len(data) > OUTPUT:
                end = "output" if chunk else "done"
                break
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # The one that wrote may have been ended by a limit before we did.
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    ended = os.WTERMSIG(statuses[-1]) if os.WIFSIGNALED(statuses[-1]) else 0
    if end == "done" and ended:
        end = f"signal {ended}"
    return data[:OUTPUT].decode("ascii", "replace").split("\n")[:-1], end


def judge(job: dict[str, Any], null: int) -> tuple[list[str], str]:
    """Do one job."""
    deadline = time.monotonic() + job["wall"]
    opened: list[int] = []

    def pipe() -> tuple[int, int]:
        opened.extend(ends := os.pipe())
        return ends

    result, out = pipe()
    try:
        if "calls" in job:
            pids = [child(job, [out], null, lambda: candidate(job, iter(job["calls"]), out))]
        else:
            # The tests wait in a file in memory: a candidate that looks around in its own memory finds none.
            paper = os.memfd_create("tests")
            opened.append(paper)
            os.write(paper, job.pop("tests").encode())
            os.lseek(paper, 0, os.SEEK_SET)
            (asked, ask), (reply, answer) = pipe(), pipe()
            pids = [
                child(job, [asked, answer], null, lambda: candidate(job, iter(Lines(asked)), answer)),
                child(
                    job,
                    [paper, reply, ask, out],
                    null,
                    lambda: test(job, os.read(paper, OUTPUT), iter(Lines(reply)), ask, out),
                ),
            ]
        for descriptor in opened[1:]:
            os.close(descriptor)
        del opened[1:]
        return collect(pids, result, deadline)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def holes() -> list[str]:
    """What the filter lets pass and must not."""
    tries: dict[str, Callable[[], object]] = {
        "opening files": lambda: os.open(os.devnull, os.O_RDONLY),
        "new processes": os.fork,
        "other programs": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
        "signals": lambda: os.kill(os.getpid(), 0),
        "new pipes and sockets": os.pipe,
    }
    found = []
    for what, work in tries.items():
        try:
            work()
        except OSError as error:
            if error.errno == errno.EPERM:  # said by the filter; another reason would be another wall's, or chance
                continue
        found.append(what)
    return found


def ready(null: int) -> str:
    """What keeps a child from being held as it must be; "" if nothing does."""
    result, out = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            limits.confine(5, [out], null)
            say(out, ", ".join(f"a wall against {what}" for what in holes()))
        except limits.Missing as error:
            say(out, str(error))
        finally:
            os._exit(0)
    os.close(out)
    lines, end = collect([pid], result, time.monotonic() + 20)
    os.close(result)
    return str(json.loads(lines[0])) if lines else f"a filter that Python lives under ({end})"


def jobs(parent: int) -> Iterator[dict[str, Any]]:
    """Jobs, until the pipe closes or the parent is gone (another child may hold the pipe's other end open)."""
    buffer = b""
    while True:
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            job, line = json.loads(line), b""
            yield job
        if not select.select([0], [], [], 5.0)[0]:
            if os.getppid() != parent:
                return
            continue
        chunk = os.read(0, 1 << 20)
        if not chunk:
            return
        buffer += chunk


def main() -> None:
    """Serve jobs from standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    for name in MODULES:
        importlib.import_module(name)
    "x".encode("utf-8-sig"), "x".encode("latin-1"), "x".encode("utf-16"), ast.literal_eval("1")  # codecs are files too
    null = os.open(os.devnull, os.O_RDWR)
    layers, missing = limits.enclose(), ready(null)
    gc.freeze()
    for job in jobs(int(sys.argv[1])):
        say(1, 0)
        started = time.monotonic()
        value: Any = [missing, layers]
        if "code" in job and not missing:
            value = judge(job, null)
        say(1, {"value": value, "status": "done", "seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
