"""vLLM servers as one: which of them gets a request, and what happens when one fails.

Builds on errors and aiohttp. Everything here runs on one event loop. A request goes to the server with the fewest in
flight; if that server cannot be reached, is overloaded or fails, the request goes to another, or waits. A server is
met before its first request, and again after it was away: whatever listens there then has to be the same model.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tacit.errors import ConfigError, EngineError, EngineLost, needed

if TYPE_CHECKING:
    import aiohttp

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds that a server which failed is left alone: the first time, and at most; each time twice as long."""

SERVER_ERRORS = 4
"""Answers with a 5xx after which a request is given up: some requests break whatever server they meet."""

CONNECT_SECONDS = 5.0


def address(text: str) -> str:
    """``http://host:port/v1`` of an address as people write it.

    Raises:
        ConfigError: it is not an address.
    """
    written = text.strip().rstrip("/")
    url = written if "://" in written else f"http://{written}"
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest or any(letter in rest for letter in " ?#@"):
        raise ConfigError(f"engine {text!r} is not an address; give it as http://HOST:PORT/v1")
    return url if url.endswith("/v1") else f"{url}/v1"


@dataclass(eq=False)
class Server:
    """One address.

    Attributes:
        url: ending in /v1.
        model: what the server calls its model; None until it has been met.
        in_flight: requests that it is working on.
        failures: in a row.
        back: time (monotonic) before which it gets no request.
    """

    url: str
    model: str | None = None
    in_flight: int = 0
    failures: int = 0
    back: float = 0.0


class Unusable(Exception):
    """A server did not answer, or not now; the request may succeed elsewhere or later."""


class Pool:
    """Sends requests to servers.

    Args:
        urls: at least one.
        meet: called before a server gets its first request, and after it was away; EngineError if it is not one that
            can be used, Unusable if it is not there. Sets ``Server.model``.
        outstanding: most requests in flight; further ones wait here.
        patience: seconds for which a request is tried again before it fails.
        timeout: seconds of silence after which a server counts as failed.
        key: for servers that want one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        meet: Callable[[Server], Awaitable[None]],
        *,
        outstanding: int,
        patience: float,
        timeout: float,
        key: str | None,
    ) -> None:
        self._aiohttp = needed("vllm", "--engine", "aiohttp")
        self.servers = [Server(url) for url in urls]
        self._meet, self._patience = meet, patience
        self._room = asyncio.Semaphore(outstanding)
        self._meeting = asyncio.Lock()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = self._aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=timeout)
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._opened is None:
            # Servers drop a connection that was idle for 5 s: ours must go before that.
            connector = self._aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
            self._opened = self._aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, headers=self._headers, read_bufsize=2**20
            )
        return self._opened

    async def close(self) -> None:
        """Drop all connections."""
        if self._opened is not None:
            await self._opened.close()

    async def get(self, server: Server, path: str) -> Any:
        """What a server says at a path; ``send``'s errors."""
        with self._reaching():
            async with self._client.get(f"{server.url}{path}") as answer:
                return self._read(server, answer, await answer.read())

    async def send(self, server: Server, asked: Mapping[str, Any]) -> Any:
        """One completion from this server, without another try.

        Raises:
            Unusable: it did not answer, or has no room, or failed.
            EngineError: it refuses the request.
        """
        with self._reaching():
            body = {"model": server.model, **asked}
            async with self._client.post(f"{server.url}/completions", json=body) as answer:
                return self._read(server, answer, await answer.read())

    async def complete(self, asked: Mapping[str, Any]) -> Any:
        """One completion, from whichever server gives it.

        Args:
            asked: the body.

        Raises:
            EngineError: it is refused, or nobody has answered it in time.
        """
        async with self._room:
            return await self._persist(lambda server: self.send(server, asked))

    async def stream(
        self,
        asked: Mapping[str, Any],
        hear: Callable[[Sequence[Any]], bool],
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """One streamed completion, from whichever server gives it; from the start again if a server fails.

        Args:
            asked: the body.
            hear: gets the choices of every event; True ends the stream. Gets an empty list where it starts again.
            started: called once there is room for it.
        """

        async def listen(server: Server) -> None:
            hear([])
            with self._reaching():
                body = {"model": server.model, **asked}
                async with self._client.post(f"{server.url}/completions", json=body) as answer:
                    if answer.status != 200:
                        self._read(server, answer, await answer.read())
                    async for line in answer.content:
                        text = line.removeprefix(b"data:").strip()
                        if not line.startswith(b"data:") or not text:
                            continue
                        if text == b"[DONE]":
                            break
                        event = json.loads(text)
                        if "error" in event:
                            raise _Broken(_message(event))
                        if hear(event.get("choices") or []):
                            answer.close()  # the server sees it, and stops
                            return
            raise Unusable("the stream ended before the rollout did")

        async with self._room:
            started()
            await self._persist(listen)

    async def meet_all(self) -> None:
        """Meet every server; EngineError if one of them is not there or not usable."""
        for server in self.servers:
            try:
                await self._meet(server)
            except Unusable as error:
                raise EngineLost(
                    f"no vLLM server answers at {server.url} ({error}); start one with `vllm serve MODEL "
                    "--enable-prompt-embeds`, or correct --engine"
                ) from None

    async def _persist(self, work: Callable[[Server], Awaitable[Any]]) -> Any:
        """The result of ``work`` on one server or another."""
        deadline = time.monotonic() + self._patience
        broken = 0
        while True:
            server = await self._choose(deadline)
            server.in_flight += 1
            try:
                if server.model is None:
                    async with self._meeting:
                        if server.model is None:
                            await self._meet(server)
                result = await work(server)
            except _Broken as error:
                broken += 1
                self._failed(server)
                reason = str(error)
                if broken >= SERVER_ERRORS:
                    raise EngineError(f"vLLM servers failed {broken} times at one request: {reason}") from None
            except Unusable as error:
                reason = str(error)
                self._failed(server)
            else:
                server.failures = 0
                return result
            finally:
                server.in_flight -= 1
            if time.monotonic() >= deadline:
                urls = ", ".join(one.url for one in self.servers)
                raise EngineLost(
                    f"no vLLM server has answered for {self._patience:.0f} s at {urls} ({reason}); start it again and "
                    "run the same command, which continues where it stopped"
                )

    async def _choose(self, deadline: float) -> Server:
        """The server with the fewest requests in flight of those that are not left alone now; waits for one."""
        while True:
            now = time.monotonic()
            ready = [server for server in self.servers if server.back <= now]
            if ready:
                return min(ready, key=lambda server: server.in_flight)
            soonest = min(server.back for server in self.servers)
            # Past the deadline the last try is made, so that the error is that of a server and not of waiting.
            await asyncio.sleep(max(0.0, min(soonest, max(deadline, now)) - now))
            if time.monotonic() >= deadline:
                return min(self.servers, key=lambda server: server.back)

    def _failed(self, server: Server) -> None:
        if server.back > time.monotonic():
            return  # it said itself when to come again, or another request has just seen the same
        server.model = None
        server.back = time.monotonic() + min(FIRST_PAUSE * 2**server.failures, LONGEST_PAUSE)
        server.failures += 1

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (self._aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unusable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error

    def _read(self, server: Server, answer: aiohttp.ClientResponse, content: bytes) -> Any:
        status = answer.status
        try:
            read = json.loads(content) if content else {}
        except ValueError:
            read = {"error": {"message": content[:200].decode(errors="replace")}}
        if status == 200:
            return read
        what = f"{status} {_message(read)}"
        if status in (429, 503):
            server.back = time.monotonic() + _seconds(answer.headers.get("retry-after"))
            raise Unusable(what)
        if status >= 500:
            raise _Broken(what)
        if "enable-prompt-embeds" in what:
            raise EngineError(f"the vLLM server at {server.url} was started without --enable-prompt-embeds; add it")
        if status in (401, 403):
            raise EngineError(
                f"the vLLM server at {server.url} wants an API key ({what}); give it in TACIT_ENGINE_API_KEY"
            )
        raise EngineError(f"the vLLM server at {server.url} refuses a request: {what}")


class _Broken(Unusable):
    """A server failed at a request."""


def _message(read: Any) -> str:
    error = read.get("error", read) if isinstance(read, dict) else read
    said = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:300]


def _seconds(header: str | None) -> float:
    """How long a server asks to be left alone."""
    try:
        return min(max(0.1, float(header or FIRST_PAUSE)), 60.0)
    except ValueError:  # a date
        return FIRST_PAUSE
