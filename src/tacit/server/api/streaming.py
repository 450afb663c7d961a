"""Streams: several answers in one, server-sent events, and callers who leave.

Builds on asyncio and Starlette.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse

from tacit.errors import TacitError
from tacit.server.api.errors import Refused, refusal_of

T = TypeVar("T")
DONE = "data: [DONE]\n\n"
LOOK_SECONDS = 0.25
MOST_AT_ONCE = 256
"""Tokens that are written together."""


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
    """What several streams yield, as it comes, with the stream's number; the first error ends them all."""
    if len(streams) == 1:  # without a task and a queue between
        async for single in streams[0]:
            yield 0, single
        return
    news: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()

    async def read(number: int, stream: AsyncIterator[T]) -> None:
        try:
            async for one in stream:
                news.put_nowait((number, one))
            news.put_nowait(None)
        except Exception as error:
            news.put_nowait(error)

    tasks = [asyncio.create_task(read(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            one = await news.get()
            if one is None:
                left -= 1
            elif isinstance(one, Exception):
                raise one
            else:
                yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def bursts(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[list[tuple[int, T]]]:
    """``merged``, all that has come at a time: who takes long over one finds more in the next."""
    held: list[tuple[int, T]] = []
    come, over = asyncio.Event(), False

    async def read() -> None:
        nonlocal over
        try:
            async for one in merged(streams):
                held.append(one)
                come.set()
                if len(held) % MOST_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others' turn, however fast they come
        finally:
            over = True
            come.set()

    task = asyncio.create_task(read())
    try:
        while not over or held:
            if not held:
                come.clear()
                await come.wait()
                continue
            burst, held[:MOST_AT_ONCE] = held[:MOST_AT_ONCE], []
            yield burst
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def written(value: Any) -> bytes:
    """JSON as responses have it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def sent(request: Request, events: AsyncIterator[str]) -> StreamingResponse:
    """A response of these events. The first one is waited for, so that what goes wrong before it has its status; a
    caller who leaves before it leaves nothing running."""
    first = await unless_gone(request, lambda: _first(events))

    async def all_of_them() -> AsyncIterator[str]:
        try:
            yield first
            async for one in events:
                yield one
        except TacitError as error:
            yield event(refusal_of(error).body())
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(all_of_them(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _first(events: AsyncIterator[str]) -> str:
    try:
        return await anext(events)
    except BaseException:
        await events.aclose()  # type: ignore[attr-defined]
        raise


async def unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """``work``'s result, cancelled when the caller closes the connection.

    Raises:
        Refused: it did; nobody hears of it, but it is counted, and no error of ours to be logged.
    """
    task = asyncio.ensure_future(work())
    try:
        while True:
            done, _ = await asyncio.wait((task,), timeout=LOOK_SECONDS)
            if done:
                return task.result()
            if await request.is_disconnected():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                raise Refused(499, "the caller has gone", code="client_closed_request")
    finally:
        task.cancel()
