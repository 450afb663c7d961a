"""A connection that waits for a request's head only so long, which uvicorn's own does not.

Builds on uvicorn. A peer that sends a line of its head now and then would hold a connection forever, and a few thousand
of them all that the process may have. Bodies have their own bound (access.py), idle connections uvicorn's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """One connection; closed where a head is not there ``seconds`` after its connection or its first byte."""

    seconds = 30.0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called once, at the beginning."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Called with whatever has come."""
        if not self._answering:
            self._wait()
        super().data_received(data)
        if self._answering:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called once, at the end."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.seconds, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self._answering:
            self.transport.close()


def connection(seconds: float) -> type[Connection]:
    """The class of connections that wait ``seconds`` for a head."""
    return type("Connection", (Connection,), {"seconds": seconds})
