"""What clients do a little differently, made the same before a route sees it: HEAD, a slash too many, pages of others.

Builds on Starlette's CORS and access. ``Lenient`` stands behind ``Access``, which judges a path as it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware

from tacit.server.api.access import App, Message, Receive, Scope, Send

API = ("/v1/", "/tacit/v1/", "/health/", "/metrics/", "/openapi.json/")
"""Where a slash at the end says nothing. Of a file it makes another name, which there is none of."""

PAGES_MAY = "/v1/"
"""Where a page of an allowed origin may call: what a client of OpenAI's calls, and not what looks after memories."""


class Lenient:
    """Answers HEAD as GET without the body, and an API path that ends with slashes as the one without."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        path = scope["path"].rstrip("/") if scope["path"].startswith(API) else scope["path"]
        method = "GET" if is_head else scope["method"]

        async def headless(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "path": path, "method": method}, receive, headless if is_head else send)


class Pages:
    """Takes requests that pages of some origins make their browsers send for those of programs; CORS lets them read
    the answers. Of other pages it knows nothing: ``Access`` refuses them.

    Args:
        app: what is behind.
        origins: as browsers write them, "https://chat.example:8443".
    """

    def __init__(self, app: App, origins: Sequence[str]) -> None:
        self.app, self.origins = app, frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PAGES_MAY):
            found = [value for name, value in scope["headers"] if name.lower() == b"origin"]
            if len(found) == 1 and found[0] in self.origins:
                told = (b"origin", b"sec-fetch-site")
                scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in told]}
        await self.app(scope, receive, send)


def for_pages(app: App, origins: Sequence[str]) -> App:
    """``app``, callable by pages of ``origins``; without any, ``app`` itself."""
    if not origins:
        return app
    return CORSMiddleware(
        Pages(app, origins),
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=("Retry-After",),
    )
