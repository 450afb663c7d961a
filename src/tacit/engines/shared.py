"""One engine for many threads: whoever asks shares one continuously running batch.

Builds on the engine protocol. A thread of its own steps a session for as long as there is something to do; callers wait
for whole rollouts (``generate``, as of an engine) or listen to single tokens (``start``). What else is in the batch
changes no result (engines/local.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from tacit.engines.base import Progress, Request, Rollout, Session
from tacit.errors import EngineBusy, EngineError, EngineLost

Listener = Callable[["Progress | EngineError"], None]
"""Told of every token, on the engine's thread; or once of the error that ended the request. Must neither wait nor
raise: everyone else's tokens wait for it."""


@dataclass(eq=False)
class _Asked:
    """A request and who listens to it; ``ticket`` once the session has it."""

    request: Request
    listener: Listener
    left: int
    ticket: int | None = None
    cancelled: bool = False


@dataclass(eq=False)
class _Gathering:
    """The rollouts of one request, until all are there."""

    future: Future[list[Rollout]] = field(default_factory=Future)
    rollouts: dict[int, Rollout] = field(default_factory=dict)
    wanted: int = 1

    def __call__(self, news: Progress | EngineError) -> None:
        if isinstance(news, EngineError):
            self.future.set_exception(news)
        elif news.rollout is not None:
            self.rollouts[news.index] = news.rollout
            if len(self.rollouts) == self.wanted:
                self.future.set_result([self.rollouts[index] for index in range(self.wanted)])


class SharedEngine:
    """Serves many threads from one session. Thread-safe.

    Args:
        session: made for this alone.
        max_waiting: requests that may wait for a place in the batch; further ones are turned away.
        threads: of the matrix libraries on the engine's thread, which do not take over another thread's setting.
    """

    def __init__(self, session: Session, *, max_waiting: int = 256, threads: int | None = None) -> None:
        self._session = session
        self._threads = threads
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._arrived: list[_Asked] = []
        self._left: list[_Asked] = []  # cancelled, to be dropped by the engine's thread
        self._asked: dict[int, _Asked] = {}
        self._waiting = 0  # in the session, as of its last step
        self._running = 0
        self._closed = self.failed = False
        self._thread = threading.Thread(target=self._run, name="tacit-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that have not been started."""
        return self._waiting + len(self._arrived)

    @property
    def running(self) -> int:
        """Rollouts in flight."""
        return self._running

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``; blocks. If one of the requests fails, the others are dropped.

        Raises:
            EngineBusy: there is no room in the queue.
            EngineError: a request is malformed, or the engine has failed or been closed.
        """
        gatherings = [_Gathering(wanted=request.n) for request in requests]
        tickets = self._enter([_Asked(r, g, r.n) for r, g in zip(requests, gatherings, strict=True)])
        try:
            return [gathering.future.result() for gathering in gatherings]
        except BaseException:
            for ticket in tickets:
                self.cancel(ticket)
            raise

    def start(self, request: Request, listener: Listener) -> object:
        """Serve a request and tell ``listener`` of every token; what ``cancel`` takes.

        Raises EngineBusy or, when closed, EngineError; that a request is malformed is told to the listener.
        """
        return self._enter([_Asked(request, listener, request.n)])[0]

    def cancel(self, handle: object) -> None:
        """Drop a request that ``start`` returned; its listener hears no more (but for what is on its way)."""
        assert isinstance(handle, _Asked)
        with self._changed:
            handle.cancelled = True
            self._left.append(handle)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; whoever still waits gets an EngineError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _enter(self, asked: list[_Asked]) -> list[_Asked]:
        with self._changed:
            if self.failed:
                raise EngineLost("the engine has failed, and the server has to be started anew; its log says why")
            if self._closed:
                raise EngineError("the engine has been closed")
            if self.waiting and self.waiting + len(asked) > self._max_waiting:
                raise EngineBusy(f"{self.waiting} requests are waiting, {self._max_waiting} may; try again later")
            self._arrived += asked
            self._changed.notify()
        return asked

    def _run(self) -> None:
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            while True:
                with self._changed:
                    while not (self._arrived or self._left or self._asked or self._closed):
                        self._changed.wait()
                    if self._closed:
                        break
                    arrived, self._arrived = self._arrived, []
                    left, self._left = self._left, []
                    self._waiting += len(arrived)
                self._admit(arrived, left)
                for news in self._session.step():
                    self._tell(news)
                with self._changed:
                    self._waiting, self._running = self._session.waiting, self._session.running
        except Exception as error:  # whatever it is, nobody may wait forever
            with self._changed:
                self._closed = self.failed = True
            self._fail(EngineLost(f"the engine has failed: {type(error).__name__}: {error}"))
            raise
        self._fail(EngineError("the engine has been closed"))

    def _admit(self, arrived: list[_Asked], left: list[_Asked]) -> None:
        for asked in arrived:
            if asked.cancelled:
                continue
            try:
                asked.ticket = self._session.submit(asked.request)
            except EngineError as error:
                asked.listener(error)
            else:
                self._asked[asked.ticket] = asked
        for asked in left:
            if asked.ticket is not None and self._asked.pop(asked.ticket, None) is not None:
                self._session.cancel(asked.ticket)

    def _tell(self, news: Progress) -> None:
        asked = self._asked.get(news.ticket)
        if asked is None or asked.cancelled:
            return
        if news.error is not None:
            del self._asked[news.ticket]
            asked.listener(news.error)
            return
        if news.rollout is not None:
            asked.left -= 1
            if asked.left == 0:
                del self._asked[news.ticket]
        asked.listener(news)

    def _fail(self, error: EngineError) -> None:
        with self._changed:
            everyone = [*self._asked.values(), *self._arrived]
            self._asked.clear()
            self._arrived.clear()
        for asked in everyone:
            if not asked.cancelled:
                asked.listener(error)
