"""``tacit`` commands as processes that start at once: forked from one that has imported everything already.

Builds on frozen_imports (what is imported). ``python -m tacit`` imports for seconds before it does anything. A process
made here is one like any other, with an id, streams, an exit code, settings and signals of its own, and it runs the
same module from its first line on. All that it has from its parent is modules that were imported and have done nothing
yet. Some commands of every kind start from nothing all the same (``cold``): that they do is tested too, and that the
same comes of it. Processes of a comparison's cells can be forked too.
"""

from __future__ import annotations

import atexit
import multiprocessing.context
import multiprocessing.forkserver
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

LIMIT = 300
"""Seconds that a command may take."""
OUTSIDE = dict(os.environ)
"""The environment outside of any test, which the process that is forked has."""


def words(*arguments: object) -> list[str]:
    """The command line of a command."""
    return [sys.executable, "-m", "tacit", *map(str, arguments)]


def script(file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python file that has run as ``python FILE`` would, forked too."""
    command = Command(*arguments, file=file)
    try:
        out, errors = command.communicate()
    finally:
        command.kill()
    assert command.returncode is not None
    return subprocess.CompletedProcess([sys.executable, str(file)], command.returncode, out, errors)


def cold(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command that has ended, from a Python that started from nothing."""
    return subprocess.run(words(*arguments), env=env, capture_output=True, text=True, timeout=LIMIT, check=False)


class Command:
    """A command that runs, to be used as a ``subprocess.Popen``.

    Args:
        arguments: of ``tacit``.
        env: all of its environment; default: as here. What is read by imports needs ``cold``.
        largest: bytes that a file may have, more than which stands for a full disk.
        log: file for what it writes to stdout and stderr; default: one for each, see ``written``.
        file: a Python file that runs instead of ``tacit``.
    """

    def __init__(
        self,
        *arguments: object,
        env: dict[str, str] | None = None,
        largest: int | None = None,
        log: Path | None = None,
        file: Path | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tacit-command-")
        self._streams = [log or Path(self._folder.name, name) for name in ("stdout", "stderr")]
        place = (Path.cwd(), dict(os.environ) if env is None else env)
        self._process = _context().Process(
            target=_become, args=([*map(str, arguments)], self._streams, *place, largest, file)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; -N where signal N ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("tacit", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since, and its exit code is on the way
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with signal 9."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """What it has written to stdout and stderr, once it has ended."""
        self.wait(timeout)
        return self.written()

    def written(self) -> tuple[str, str]:
        """What it has written so far to stdout and stderr."""
        out, errors = (file.read_text() if file.exists() else "" for file in self._streams)
        return out, errors


def ran(
    *arguments: object, env: dict[str, str] | None = None, largest: int | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    command = Command(*arguments, env=env, largest=largest)
    try:
        out, errors = command.communicate()
    finally:
        command.kill()
    assert command.returncode is not None
    return subprocess.CompletedProcess(words(*arguments), command.returncode, out, errors)


@cache
def _context() -> multiprocessing.context.ForkServerContext:
    """The process that is forked; it runs from here on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["frozen_imports"])
    before = dict(os.environ)
    path = [str(Path(__file__).parent), *filter(None, [OUTSIDE.get("PYTHONPATH")])]
    os.environ.clear()
    os.environ.update(OUTSIDE, PYTHONPATH=os.pathsep.join(path))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def forked_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this process starts by multiprocessing is forked as well, as the cells of its comparisons; without this
    environment."""
    context = _context()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)


def _become(
    arguments: list[str],
    streams: list[Path],
    folder: Path,
    env: dict[str, str],
    largest: int | None,
    file: Path | None,
) -> None:
    """In the forked process: be ``python -m tacit``, or ``python FILE``."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    np.random.seed()  # as in a new process; Python's own generator sees to itself
    sys.argv = [str(file or "tacit"), *arguments]
    try:
        if file:
            sys.path.insert(0, str(file.parent))
            runpy.run_path(str(file), run_name="__main__")
        else:
            runpy.run_module("tacit", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
