"""The latest answers of each namespace, and how many there were per minute: what the dashboard shows live.

Builds on nothing. It is kept in memory alone and bounded, so a restarted server begins with an empty one; what lasts is
counted at the memories (in the bank) and by whatever collects ``/metrics``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LATEST = 500
"""Answers that are kept of one namespace."""

MINUTES = 180
"""Minutes with answers that are kept of one namespace."""

EXCERPT = 200
"""Characters that are kept of a problem and of a reason."""


@dataclass(frozen=True)
class Answer:
    """One answered prompt, in short.

    Attributes:
        number: 1 for the namespace's first; rises by 1.
        time: unix seconds of its end.
        route, why: of the first choice; None where nothing was generated.
        tokens: of every rollout that was made for it.
        problem: its first ``EXCERPT`` characters.
    """

    number: int
    time: float
    model: str
    route: str | None
    why: str | None
    memory: str | None
    similarity: float | None
    seconds: float
    tokens: int
    problem: str
    learning: str


@dataclass
class Minute:
    """Answers of one minute: ``time`` is its first unix second, ``routes`` counts the routes that occurred."""

    time: int
    requests: int = 0
    routes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Kept:
    last: int = 0
    answers: deque[Answer] = field(default_factory=lambda: deque(maxlen=LATEST))
    minutes: deque[Minute] = field(default_factory=lambda: deque(maxlen=MINUTES))


class Feed:
    """The answers of all namespaces, each by itself. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives unix seconds."""
        self._clock, self._lock = clock, threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def add(self, namespace: str, *, route: str | None, why: str | None, problem: str, **told: Any) -> None:
        """Tell of an answer; see ``Answer`` for the fields."""
        now = self._clock()
        with self._lock:
            kept = self._kept.setdefault(namespace, _Kept())
            kept.last += 1
            short, excerpt = why and why[:EXCERPT], problem[:EXCERPT]
            kept.answers.append(Answer(kept.last, now, route=route, why=short, problem=excerpt, **told))
            start = int(now // 60) * 60
            if not kept.minutes or kept.minutes[-1].time < start:  # a clock that was put back stays in its last minute
                kept.minutes.append(Minute(start))
            minute = kept.minutes[-1]
            minute.requests += 1
            if route is not None:
                minute.routes[route] = minute.routes.get(route, 0) + 1

    def since(self, namespace: str, after: int = 0) -> tuple[int, list[Answer], list[Minute]]:
        """The number of the last answer, those numbered above ``after`` (oldest first), and the minutes (oldest first).

        All that is kept if there never was a number ``after``: it is from before a restart.
        """
        with self._lock:
            kept = self._kept.get(namespace, _Kept())
            first = after if after <= kept.last else 0
            answers = [one for one in kept.answers if one.number > first]
            return kept.last, answers, [Minute(m.time, m.requests, dict(m.routes)) for m in kept.minutes]
