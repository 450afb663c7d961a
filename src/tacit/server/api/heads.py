"""A connection that waits only so long for a request's head, and for its answer to be read; uvicorn's own do not.

Builds on uvicorn. A peer that sends a line of its head now and then, or reads nothing, would hold a connection forever.
A few thousand of them would hold all that the process may have. Bodies have their own bound (access.py), idle
connections uvicorn's.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

LEAST = 64 * 1024
"""Bytes that a peer has to read in its time, while there are more than are kept for it."""


class Connection(H11Protocol):
    """One connection; closed where a head is not there ``seconds`` after its connection or its first byte."""

    seconds, write_seconds, most = 30.0, 30.0, 1000

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._before = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called once, at the beginning; where there are too many, one that asks nothing now makes room."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most:
            others = (one for one in self.connections if isinstance(one, Connection) and one is not self)
            next((one for one in others if not (one._answering or one.transport.is_closing())), self).transport.abort()

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
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when more is waiting to be read than is kept for a peer."""
        super().pause_writing()
        if self._unread is None:
            self._watch()

    def resume_writing(self) -> None:
        """Called when little is left."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Called when nothing has come for a while: what is left unread then is given up."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.write_seconds, self.transport.abort)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        self._before = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.write_seconds, self._look)

    def _look(self) -> None:
        """Hang up on a peer that has read less than ``LEAST`` since the last look."""
        if self._before - self.transport.get_write_buffer_size() < LEAST:
            self.transport.abort()
        else:
            self._watch()

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


def connection(seconds: float, write_seconds: float) -> type[Connection]:
    """The class of connections that wait ``seconds`` for a head, and ``write_seconds`` for an answer to be read."""
    most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)  # files and processes need descriptors too
    return type("Connection", (Connection,), {"seconds": seconds, "write_seconds": write_seconds, "most": most})
