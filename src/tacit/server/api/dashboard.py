"""The dashboard: a page at ``/`` and the few files that it needs, all from the package; its live feed and its map.

Builds on views, the bank's map, the memory API and the service. The page is static. It takes all it shows from the API
of everyone else, with the key that the browser asked for. What it shows comes from clients (problems, answers), so its
scripts only ever set text. The policy sent with it allows no script and no file but its own.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from tacit.bank.tending.map import Map, mapped
from tacit.server.api.errors import not_found
from tacit.server.api.memories import Admin
from tacit.server.api.views import FeedPage
from tacit.server.live.service import Service

TYPES = {"html": "text/html", "css": "text/css", "svg": "image/svg+xml", "js": "text/javascript", "txt": "text/plain"}
NAMES = (
    "index.html style.css icon.svg app.js dom.js api.js charts.js overview.js memories.js memory.js queue.js ask.js "
    "map.js vendor/uPlot.js vendor/uPlot.css vendor/uPlot-LICENSE.txt"
)
FILES = {name: TYPES[name.rpartition(".")[2]] for name in NAMES.split()}
"""All that is served, with its type. Nothing else is: a path is looked up here, never on the disk."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""``no-cache`` lets a browser keep a file but makes it ask: page and server are never of two versions."""


def add_dashboard(api: FastAPI, service: Service) -> None:
    """Add ``/``, ``/static/...``, ``/tacit/v1/feed`` and ``/tacit/v1/map``."""
    folder = files("tacit.server") / "static"
    contents = {name: folder.joinpath(*name.split("/")).read_bytes() for name in FILES}
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, data in contents.items()}

    def file(name: str, request: Request) -> Response:
        if name not in contents:
            raise not_found(f"the dashboard has no file {name!r}")
        headers = {**HEADERS, "ETag": tags[name]}
        if tags[name] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(contents[name], headers=headers, media_type=FILES[name])

    @api.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return file("index.html", request)

    @api.get("/static/{name:path}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return file(name, request)

    @api.get("/tacit/v1/feed")
    async def feed(caller: Admin, after: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> FeedPage:
        """The latest answers of this key's namespace, oldest first, and all answers per minute."""
        last, answers, minutes = service.feed.since(caller.namespace, after)
        return FeedPage(last=last, answers=answers, minutes=minutes)

    @api.get("/tacit/v1/map")
    async def bank_map(caller: Admin) -> Map:
        """The most used of this namespace's active memories in the plane, near where their keys are near."""
        return await service.storing(lambda: mapped(service.bank, caller.namespace))
