"""How many tokens this process has generated, whoever asked: no method can forget to report what it spent.

Builds on nothing. ``LocalEngine`` adds to it; the comparison reads it before and after.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Meter:
    """A count that only grows. Thread-safe.

    Attributes:
        tokens: generated so far in this process.
    """

    tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, tokens: int) -> None:
        """Count so many more."""
        with self._lock:
            self.tokens += tokens


METER = Meter()
