"""Streaming from vLLM servers: requests that come and go, token by token.

Builds on the engine protocol, wire and, for the servers, on the engine (engine.py) that makes it. Every rollout
is a stream of its own; to cancel one is to close its stream, which the server notices. If a server fails, its rollouts
start again elsewhere, and what was told before is not told again.

Where a request's log-probs have to be computed here (``VLLMEngine.differs``), they need the whole rollout: its tokens
then come all at once. ``--logprobs-mode processed_logprobs`` at the server avoids that.
"""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tacit.engines.base import METER, Progress, Request, Rollout, Session
from tacit.engines.vllm.wire import Growing, body, pieces, prompt, rescored
from tacit.errors import EngineError

if TYPE_CHECKING:
    from tacit.engines.vllm.engine import VLLMEngine

STEP_SECONDS = 0.02
"""For which ``step`` waits for news, so that whoever calls it can look after others in between."""


@dataclass(eq=False)
class _Asked:
    """A request that the servers are working on.

    Attributes:
        left: rollouts that are not over.
        started: whether a server has it.
    """

    request: Request
    left: int
    future: Future[None] | None = None
    started: bool = False


@dataclass(frozen=True)
class _News:
    """What the event loop tells: a token, a whole rollout whose log-probs are to be computed, or an error."""

    ticket: int
    index: int
    token: Progress | None = None
    rollout: Rollout | None = None
    error: EngineError | None = None


class VLLMSession(Session):
    """Made by ``VLLMEngine``."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine
        self._asked: dict[int, _Asked] = {}
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._next = 0

    @property
    def waiting(self) -> int:
        return sum(not asked.started for asked in self._asked.values())

    @property
    def running(self) -> int:
        return sum(asked.left for asked in self._asked.values() if asked.started)

    def submit(self, request: Request) -> int:
        engine = self._engine
        engine.check("the request", request)
        self._next += 1
        asked = self._asked[self._next] = _Asked(request, request.n)
        work = self._serve(self._next, asked, prompt(engine.backbone, request))
        asked.future = asyncio.run_coroutine_threadsafe(work, engine.loop)
        return self._next

    def cancel(self, ticket: int) -> None:
        asked = self._asked.pop(ticket, None)
        if asked is not None and asked.future is not None:
            asked.future.cancel()

    def step(self) -> list[Progress]:
        """See ``Session.step``: what has come in, after a moment at most; nothing where nothing has."""
        told: list[Progress] = []
        try:
            news = self._news.get(timeout=STEP_SECONDS) if self._asked else self._news.get_nowait()
            while True:
                told += self._told(news)
                news = self._news.get_nowait()
        except queue.Empty:
            return told

    def _told(self, news: _News) -> list[Progress]:
        asked = self._asked.get(news.ticket)
        if asked is None:
            return []  # cancelled
        if news.error is not None:
            self.cancel(news.ticket)
            return [Progress(news.ticket, 0, -1, math.nan, error=news.error)]
        told = [news.token] if news.token is not None else []
        if news.rollout is not None:
            [rollout] = rescored(self._engine.backbone, asked.request, [news.rollout])
            told = progress(news.ticket, news.index, rollout)
        if told[-1].rollout is not None:
            METER.add(len(told[-1].rollout.token_ids))
            asked.left -= 1
            if asked.left == 0:
                del self._asked[news.ticket]
        return told

    async def _serve(self, ticket: int, asked: _Asked, head: dict[str, Any]) -> None:
        request = asked.request
        # Greedy rollouts are all the same one.
        streams = [[index] for index in range(request.n)] if request.temperature else [list(range(request.n))]
        tasks = [asyncio.create_task(self._stream(ticket, asked, head, indices)) for indices in streams]
        try:
            await asyncio.gather(*tasks)
        except EngineError as error:
            self._news.put(_News(ticket, 0, error=error))
        except Exception as error:
            self._news.put(_News(ticket, 0, error=EngineError(f"vLLM engine: {type(error).__name__}: {error}")))
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(self, ticket: int, asked: _Asked, head: dict[str, Any], indices: Sequence[int]) -> None:
        engine, request = self._engine, asked.request
        whole = engine.differs(request)
        growing = Growing(engine.backbone, request)
        told: list[int] = []

        def started() -> None:
            asked.started = True

        def hear(choices: Sequence[Any]) -> bool:
            nonlocal growing
            if not choices:
                growing = Growing(engine.backbone, request)
            for choice in choices:
                for piece in pieces(choice, request.top):
                    growing.add(piece)
                    place = len(growing.held) - 1
                    if place < len(told):
                        if told[place] != piece.token_id:
                            raise EngineError("a vLLM server failed, and another goes on differently; ask again")
                        continue
                    told.append(piece.token_id)
                    for index in indices if not whole else ():
                        news = Progress(
                            ticket,
                            index,
                            piece.token_id,
                            piece.logprob,
                            piece.alternatives if request.top else (),
                            growing.rollout,
                        )
                        self._news.put(_News(ticket, index, token=news))
                    if growing.rollout is not None:
                        return True
            return False

        asked_for = body(engine.backbone, request, head, indices[0], draws=engine.ability.draws, stream=True)
        await engine.pool.stream(asked_for, hear, started)
        if whole:
            for index in indices:
                self._news.put(_News(ticket, index, rollout=growing.rollout))


def progress(ticket: int, index: int, rollout: Rollout) -> list[Progress]:
    """A rollout as if it were drawn now, token by token."""
    last = len(rollout.token_ids) - 1
    return [
        Progress(
            ticket,
            index,
            token,
            rollout.logprobs[place],
            rollout.alternatives[place] if rollout.alternatives else (),
            rollout if place == last else None,
        )
        for place, token in enumerate(rollout.token_ids)
    ]
