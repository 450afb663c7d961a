"""The learner as the server sees it: a process of its own that is started, watched, started again, and stopped.

Builds on config; the process itself is ``worker``. It is a process and not a thread. So learning neither holds the
interpreter that answers requests nor takes it along when it dies. Knows nothing of torch.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass

from tacit.config import Settings, check_tending, require
from tacit.errors import ConfigError
from tacit.experiments.run_folder import changed, completed

LOG = logging.getLogger("tacit.learner")

PATIENCE = 30.0
"""Seconds that server and learner wait for each other's writes: a request had better be late than fail."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a dead worker is started again: the first time, and at most; each time twice as long."""

STEADY = 60.0
"""Seconds after which a worker that still lives counts as well, so that the next wait is the first again."""

LOOPING = 3
"""Deaths, or starts that failed, without a steady worker in between, that are told as failing."""


@dataclass(frozen=True)
class WorkerSettings(Settings):
    """What a worker needs to know. ``learn.batch`` is how many problems it takes at once.

    Attributes:
        bank: URL or path.
        seed: of all sampling and learning; the server's, so that memories have the ids that it expects.
        nice: added to the process's niceness, so that serving comes first.
        lease: seconds until another worker takes over what one that stalls or dies had claimed.
        poll: seconds between looks for work while there is none.
        promote: whether candidates are tried for promotion between batches, and hurtful memories quarantined.
        tend: every so many problems each namespace is tended; 0 for never.
        keep: most active memories of a namespace that tending keeps.
    """

    bank: str = ""
    seed: int = 0
    nice: int = 10
    lease: float = 15.0
    poll: float = 1.0
    promote: bool = True
    tend: int = 0
    keep: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tending(self.tend, self.keep)
        require(0 <= self.nice <= 19, f"nice is {self.nice}; it must be between 0 and 19")
        for name in ("lease", "poll"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0 seconds")

    def to_json(self) -> str:
        """As text for ``from_json``."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> WorkerSettings:
        """What ``to_json`` wrote; ConfigError if it is anything else."""
        try:
            values = completed(json.loads(text))
            require("bank" in values, "these are no settings of a worker: there is no bank")
            return changed(WorkerSettings(), values, "a worker's settings")
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"these are no settings of a worker: {error}") from None


class LearnerProcess:
    """One worker process, kept alive from ``start`` to ``stop``; if this process dies, so does the worker.

    What the worker prints goes to this process's stderr. A worker that dies, or cannot even be started (no memory, no
    file descriptors), is started again after a pause, for longer each time.

    Attributes:
        restarts: workers that were started in place of another.
        deaths: since there was a steady one.
        exit_code: of the latest that has ended.
        reason: of the latest death, or why the latest start failed; None while all is well. It quotes no problem.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.restarts = self.deaths = 0
        self.exit_code: int | None = None
        self.reason: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether a worker is running now."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def failing(self) -> bool:
        """Whether it dies, or cannot be started, again and again."""
        return self.deaths >= LOOPING

    @property
    def state(self) -> str:
        """In a word, for those who may know no more: "running", "starting again" or "failing"."""
        return "failing" if self.failing else "running" if self.alive else "starting again"

    @property
    def pid(self) -> int | None:
        """Of the latest worker."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the worker and watch over it; a second time does nothing."""
        with self._lock:
            if self._watcher is None:
                self._stopping.clear()
                self._launch()
                self._watcher = threading.Thread(target=self._watch, name="tacit-learner", daemon=True)
                self._watcher.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """End the worker: it gives back what it has not finished. True if it went in good order within ``timeout``
        seconds; it is killed otherwise, and its leases run out."""
        self._stopping.set()
        with self._lock:
            watcher, self._watcher = self._watcher, None
            process = self._process
        if watcher is None:
            return True
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watcher.join()
        # A signal ends it while it is still loading, when it has claimed nothing yet.
        return process is None or process.returncode in (0, -signal.SIGTERM)

    def _launch(self) -> None:
        """Start a worker; what keeps it from being started counts as a death."""
        self._process = None
        # Settings go through the pipe, not the command line, which every user of the machine can read.
        command = [sys.executable, "-m", "tacit.server.worker", str(os.getpid())]
        process: subprocess.Popen[str] | None = None
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr.fileno(), text=True)
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as pipe:  # dead already: the watcher sees to it
                pipe.write(self.settings.to_json())
        except (OSError, MemoryError) as error:  # no descriptors, no memory
            if process is not None:
                process.kill()
                process.wait()
            self._died(f"it cannot be started ({error})")
        else:
            self._process = process

    def _died(self, why: str) -> None:
        self.deaths += 1
        self.reason = why
        LOG.error("the learner has died %d times without a steady minute: %s", self.deaths, why)

    def _watch(self) -> None:
        while True:
            if self._process is not None:
                self._see_through(self._process)
            doublings = min(max(0, self.deaths - 1), 20)  # a large power is no float
            if self._stopping.wait(min(FIRST_WAIT * 2**doublings, LONGEST_WAIT)):
                return
            with self._lock:
                if self._stopping.is_set():
                    return
                self._launch()
                self.restarts += self._process is not None

    def _see_through(self, process: subprocess.Popen[str]) -> None:
        """Wait for the end of a worker; one that has been steady makes good what was before."""
        try:
            process.wait(STEADY)
        except subprocess.TimeoutExpired:
            self.deaths, self.reason = 0, None
            process.wait()
        self.exit_code = process.returncode
        if not self._stopping.is_set():
            self._died(f"it ended with exit code {process.returncode}; the server's log says why")
