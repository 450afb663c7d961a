"""The routes of the server, and what becomes of errors.

Builds on FastAPI, access, leniency, chat, completions, memories, snapshots, dashboard and the service.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from tacit.errors import TacitError
from tacit.server.api.access import Access, App, Bodies
from tacit.server.api.asking import SUFFIX, Asking
from tacit.server.api.chat import Conversation
from tacit.server.api.completions import Completion
from tacit.server.api.dashboard import add_dashboard
from tacit.server.api.errors import Refused, not_found, refusal_of
from tacit.server.api.faults import explained
from tacit.server.api.leniency import Lenient, for_pages
from tacit.server.api.memories import add_memories, by_name
from tacit.server.api.responses import Answered, ResponsesRequest, renamed
from tacit.server.api.schemas import ChatRequest, CompletionRequest
from tacit.server.api.snapshots import add_snapshots
from tacit.server.live.service import Service

LOG = logging.getLogger("tacit.server")


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorBody


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "The request cannot be served as it is.",
        401: "No API key, or an unknown or revoked one.",
        403: "The key lacks a right.",
        404: "There is no such thing, or none that this key may see.",
        408: "The body took too long.",
        409: "What is there already stands in the way.",
        413: "The body is too large.",
        415: "The body is of another kind than this route takes.",
        429: "The server is full; try again after Retry-After seconds.",
        503: "The server is shutting down, or its bank cannot be read.",
    }.items()
}


def create_app(service: Service) -> App:
    """The ASGI application of a loaded service."""
    api = FastAPI(
        title="Tacit",
        description="A frozen language model that learns from its own experience, behind OpenAI's API.",
        version="1",
        responses=REFUSALS,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # see Lenient: a redirection would cost a client that does not follow it
    )
    _handle_errors(api)
    _add_openai(api, service)
    _add_health(api, service)
    add_memories(api, service)
    add_snapshots(api, service)
    add_dashboard(api, service)
    return for_pages(Access(Bodies(Lenient(api), service), service), service.config.allow_origin)


def _add_openai(api: FastAPI, service: Service) -> None:
    plain = service.config.served_name

    def card(name: str, **more: Any) -> dict[str, Any]:
        fixed = {"object": "model", "created": 0, "owned_by": "tacit", "root": plain, "parent": None}
        return {"id": name, **fixed, "max_model_len": service.context, **more}

    cards = [card(plain), card(plain + SUFFIX, parent=plain)]

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The plain model and the one with memory."""
        return {"object": "list", "data": cards}

    @api.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One model."""
        for one in cards:
            if one["id"] == name:
                return one
        raise not_found(f"there is no model {name!r}", "model_not_found", "model")

    @api.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request, caller: Asking) -> Response:
        """Answer a conversation."""
        return await Conversation(service, caller, body).response(request)

    @api.post("/v1/responses")
    async def responses(body: ResponsesRequest, request: Request, caller: Asking) -> Response:
        """Answer a conversation in the form of OpenAI's Responses: text alone, and nothing is stored."""
        try:
            return await Answered(service, caller, body).response(request)
        except Refused as refused:
            raise renamed(refused) from None

    @api.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request, caller: Asking) -> Response:
        """Continue raw prompts."""
        return await Completion(service, caller, body).response(request)


def _add_health(api: FastAPI, service: Service) -> None:
    @api.get("/health/live")
    async def live() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "live"}

    @api.get("/health/ready")
    async def ready() -> Response:
        """Whether requests are being taken, and how the learner is, without which they are answered all the same."""
        if service.draining:
            return JSONResponse({"status": "shutting_down"}, 503)
        if service.engine.failed:
            return JSONResponse({"status": "engine_failed"}, 503)
        if await service.storing(service.bank.fault):
            return JSONResponse({"status": "bank_replaced"}, 503)
        learner = service.learner.state if service.learner else "none"
        return JSONResponse({"status": "ready", "learner": learner, "storing": not service.unstored})

    @api.get("/metrics")
    async def metrics(caller: Asking) -> Response:
        """Figures of this key's namespace for Prometheus."""
        await service.storing(lambda: _gauge(service, caller.namespace))
        return Response(service.metrics.text(caller.namespace), media_type="text/plain; version=0.0.4")


def _gauge(service: Service, namespace: str) -> None:
    meters, learner = service.metrics.of(namespace), service.learner
    if learner is not None:
        meters.learner.labels("alive").set(learner.alive)
        meters.learner.labels("failing").set(learner.failing)
        meters.learner.labels("restarts").set(learner.restarts)
    for state, count in by_name(service.bank.counts(namespace)).items():
        meters.memories.labels(state).set(count)
    for name, count in service.jobs.counts(namespace).items():
        meters.queue.labels(name).set(count)


def _handle_errors(api: FastAPI) -> None:
    @api.exception_handler(TacitError)
    async def tacit_error(_: Request, error: TacitError) -> Response:
        return refused_response(refusal_of(error))

    @api.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return refused_response(explained(request, error))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        messages = {
            404: f"there is no {request.scope['path']!r} here",
            405: f"{request.scope['path']} does not take {request.method}",
            400: "the body is no JSON that can be read: it has to be UTF-8, and not too deep",
        }
        message = messages.get(error.status_code, str(error.detail))
        return refused_response(Refused(error.status_code, message, headers=error.headers))

    @api.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        # The traceback is for the operator; the client is told nothing of the inside.
        LOG.exception("a request to %s failed", request.scope["path"], exc_info=error)
        return refused_response(Refused(500, "the server failed; its log says why"))


def refused_response(refused: Refused) -> JSONResponse:
    """The response that tells of a refusal."""
    return JSONResponse(refused.body(), refused.status, refused.headers)
