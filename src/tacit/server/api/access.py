"""Who may talk to the server: every request passes here first, and only health checks pass without a key.

Builds on keys, as plain ASGI, so that no route can be forgotten: pages, documentation and unknown paths are behind it
as well. A key comes as a bearer token, or as the password of HTTP's basic scheme, which browsers ask for. Without any
key in the bank the server is open: on a loopback address, to this machine's own programs only: not to a web page that
makes a browser call it (its Host, Origin and Sec-Fetch-Site give it away).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from tacit.errors import TacitError
from tacit.server.api.asking import Caller
from tacit.server.api.errors import Refused, busy, refusal_of, shutting_down
from tacit.server.keys import OPEN_KEY, ApiKey
from tacit.server.live.places import Places
from tacit.server.live.service import Service, open_key

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC = ("/health/live", "/health/ready")

ONCE = (b"authorization", b"host", b"origin", b"sec-fetch-site", b"content-type")
"""Headers that are refused if there are two: whoever reads the other one decides about another request."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)


class Access:
    """Lets a request through to ``app`` with its ``Caller`` in the scope's state, or refuses it."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self.app(scope, receive, send)
            return
        costly = scope["method"] == "POST" and scope["path"].startswith("/v1/")
        places = self.service.places if costly else self.service.beside
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            _refuse_doubled(scope)
            key = await self._key(headers)
            if scope["method"] not in ("GET", "HEAD") and _from_elsewhere(headers):
                raise Refused(403, "another site's page may not change anything here", code="cross_site")
            if costly and self.service.draining:
                raise shutting_down()
            _check_place(places, key)
        except TacitError as error:  # the bank may fail, too
            await _refuse(send, refusal_of(error))
            return
        scope.setdefault("state", {})["caller"] = Caller(key, time.perf_counter())
        with places.held(key.id):
            await (self._counted(scope, receive, send, key) if costly else self.app(scope, receive, send))

    async def _key(self, headers: dict[str, str]) -> ApiKey:
        secret = _presented(headers.get("authorization", ""))
        if secret is not None:
            key = await self.service.storing(lambda: self.service.keys.lookup(secret))
            if key is not None:
                return key
        if await self.service.storing(self.service.keys.ever) or not self.service.config.loopback:
            asks = 'Basic realm="tacit"' if "text/html" in headers.get("accept", "") else "Bearer"
            raise Refused(
                401,
                "this API key is unknown or revoked" if secret else "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": asks},
            )
        host = headers.get("host", "")
        if not _local(host):
            raise Refused(403, f"without an API key only localhost is served, not {host!r}", code="host_not_allowed")
        if headers.get("sec-fetch-site") == "cross-site" or ("origin" in headers and _from_elsewhere(headers)):
            raise Refused(403, "without an API key no other site's page is served", code="cross_site")
        return open_key()

    async def _counted(self, scope: Scope, receive: Receive, send: Send, key: ApiKey) -> None:
        service = self.service
        meters = service.metrics.of(key.namespace)
        running = meters.running.labels(service.config.served_name)
        status = 499  # until a response starts: the caller has gone

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        running.inc()
        try:
            await self.app(scope, receive, watched)
        finally:
            running.dec()
            meters.requests.labels(service.config.served_name, str(status)).inc()


class Bodies:
    """Bounds what a request body may take of memory and time, before anybody reads it."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.limits = app, service.config.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):  # nobody reads their bodies
            await self.app(scope, receive, send)
            return
        end = asyncio.get_running_loop().time() + self.limits.body_seconds
        try:
            async with asyncio.timeout_at(end):
                body = await self._read(scope, receive)
        except TimeoutError:
            late = f"the body took more than {self.limits.body_seconds:g} s"
            await _refuse(send, Refused(408, late, code="timeout", headers={"Connection": "close"}))
            return
        except Refused as refused:
            await self._refuse_and_read_on(scope, receive, send, refused, end)
            return
        if body is None:
            return
        given = False

        async def replayed() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replayed, send)

    async def _refuse_and_read_on(
        self, scope: Scope, receive: Receive, send: Send, refused: Refused, end: float
    ) -> None:
        """Answer at once, then pass over the rest for as long as a body may take, and only then close.

        A client that sends everything before it reads would otherwise find a broken connection, not the answer.
        """
        await _refuse(send, refused, closing=False)
        asks_first = any(name.lower() == b"expect" for name, _ in scope["headers"])
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while not asks_first:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b""})

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the caller has gone."""
        most = self.limits.body_bytes
        too_large = Refused(
            413, f"the body is larger than the {most} bytes that this server reads", code="body_too_large",
            headers={"Connection": "close"},
        )  # fmt: skip
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and value.isdigit() and int(value[:20]) > most:
                raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _check_place(places: Places, key: ApiKey) -> None:
    """Turn a request away when the server is full."""
    if places.taken >= places.most:
        raise busy(f"{places.taken} requests are in flight, the most that this server takes; try again later")
    if not places.free(key.id, shared=key.id != OPEN_KEY):
        raise busy("this key has as many requests in flight as leave others a share; try again later")


def _presented(authorization: str) -> str | None:
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except ValueError:  # no base64, or no text in it
            return None
    return None


def _refuse_doubled(scope: Scope) -> None:
    names = [name.lower() for name, _ in scope["headers"]]
    for name in ONCE:
        if names.count(name) > 1:
            said = f"the request has {names.count(name)} headers {name.decode()!r}; send one"
            raise Refused(400, said, code="repeated_header", headers={"Connection": "close"})


def _local(host: str) -> bool:
    """Whether a Host header names this machine by a name that only its own programs call it by."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1] or found[2]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _from_elsewhere(headers: dict[str, str]) -> bool:
    """Whether another site's page has made a browser send this. A browser that says "same-origin" is believed, since
    a proxy may have put another Host in; without a word of it the page's origin has to be the host that is asked."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("cross-site", "same-site"):
        return True
    if origin is None or site == "same-origin":
        return False
    scheme, _, place = origin.partition("://")
    return scheme.lower() not in ("http", "https") or place.lower() != headers.get("host", "").lower()


async def _refuse(send: Send, refused: Refused, *, closing: bool = True) -> None:
    """Send a refusal; with ``closing=False`` whole, but so that the caller still has to end the response."""
    body = json.dumps(refused.body()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
    await send({
        "type": "http.response.start",
        "status": refused.status,
        "headers": [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body, "more_body": not closing})
