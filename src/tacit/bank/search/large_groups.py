"""Which groups of keys the database server is to search, to this process's knowledge, and who builds their indexes.

Builds on errors. A group that turns out larger than the limit is built by a thread in the background, once per process;
another process may be faster. Until it is ready, searches go on as before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tacit.bank.search.index import Group
from tacit.errors import BankError

_LOOK_AGAIN = 10.0  # seconds
_log = logging.getLogger(__name__)


class LargeGroups:
    """State of one open bank. Thread-safe."""

    def __init__(self, limit: int | None, build: Callable[[str, str, int], bool], where: str) -> None:
        """``limit`` is in keys, None for no group; ``build`` makes a group ready, or says that it did not."""
        self._limit, self._build, self._where = limit, build, where
        self._lock = threading.Lock()
        self._next: dict[Group, float] = {}  # when to look whether it is ready; absent: now
        self._builders: dict[Group, threading.Thread] = {}
        self._stopped = False
        self.working: Any = None  # the driver's connection that builds at the moment

    def to_ask(self, group: Group, rows: int) -> bool:
        """Whether to ask the database about this group, of which ``rows`` are held in memory."""
        if self._limit is None:
            return False
        with self._lock:
            if rows > self._limit and group not in self._builders and not self._stopped:
                builder = threading.Thread(target=self._run, args=(group,), name="tacit-index", daemon=True)
                self._builders[group] = builder
                builder.start()
            # Small groups are asked about once, large ones now and then until they are ready, and then each time.
            due = self._next.get(group, 0.0)
            return time.monotonic() >= due and not (due and rows <= self._limit)

    def seen(self, group: Group, ready: bool) -> None:
        """What the database said."""
        with self._lock:
            if ready:
                self._next.pop(group, None)
            else:
                self._next[group] = time.monotonic() + _LOOK_AGAIN

    def _run(self, group: Group) -> None:
        try:
            if self._build(*group):
                with self._lock:
                    self._next.pop(group, None)
        except BankError as error:
            if not self._stopped:
                _log.warning("%s: the index of %s could not be built, so searches stay as they are: %s",
                             self._where, group, error)  # fmt: skip

    def stop(self) -> None:
        """End what is being built, and wait for that."""
        with self._lock:
            self._stopped = True
            builders = list(self._builders.values())
        working = self.working
        if working is not None:
            with suppress(Exception):  # it may have ended meanwhile
                working.cancel()
        for builder in builders:
            if builder is not threading.current_thread():
                builder.join(10)
