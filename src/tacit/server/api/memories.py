"""The memory API: list, inspect, move, delete, export and import memories; look at jobs and at the server's state.

Builds on the service, portable, views and jobs. All of it is of the caller's namespace: what belongs to another one is
answered exactly as what does not exist. Every route needs the right "admin", but for the state of one job. Those who
ask may see that, since they are told its id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from pydantic import StringConstraints, TypeAdapter
from starlette.responses import Response

from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.portable import to_safetensors
from tacit.checks.values import check_name
from tacit.errors import MemoryNotFound
from tacit.memory import Memory, State
from tacit.server.api.asking import Asking, Caller
from tacit.server.api.errors import Refused, forbidden, not_found
from tacit.server.api.portable import MEDIA_TYPE, take_in
from tacit.server.api.rights import changing
from tacit.server.api.schemas import Strict
from tacit.server.api.streaming import written
from tacit.server.api.views import (
    Deleted,
    JobPage,
    LearnerState,
    MemoryDetail,
    MemoryPage,
    Neighbour,
    ServerStatus,
    SoftPrompt,
)
from tacit.server.learner.jobs import Job, JobRow, JobState, why_failed
from tacit.server.live.service import Service

NEIGHBOURS = 5
"""Nearest memories that are shown beside one."""

MOST = 1000
"""Rows of one page."""

EXCERPT = 2000
"""Characters of a problem in a list; a memory and a job shown alone have all of it."""


def administering(caller: Asking) -> Caller:
    """Who asks, if the key has the right "admin"."""
    if not caller.key.may("admin"):
        raise forbidden("admin")
    return caller


Admin = Annotated[Caller, Depends(administering)]
Limit = Annotated[int, Query(ge=1, le=MOST)]


class Why(Strict):
    """Body of a change of state."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None


def add_memories(api: FastAPI, service: Service) -> None:
    """Add the routes under ``/tacit/v1`` but those of snapshots."""
    _add_reading(api, service)
    _add_changing(api, service)
    _add_files(api, service)
    _add_jobs(api, service)


def _add_reading(api: FastAPI, service: Service) -> None:
    @api.get("/tacit/v1/memories", response_model=MemoryPage)
    async def memories(
        caller: Admin,
        state: State | None = None,
        sort: Literal["created", "uses", "helped", "hurt", "share"] = "created",
        order: Literal["asc", "desc"] = "desc",
        limit: Limit = 100,
        offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        q: Annotated[str, Query(max_length=1000)] = "",
    ) -> Response:
        """List memories; ``q`` is a part of the problem, its ASCII letters in upper or lower case alike."""

        def work() -> MemoryPage:
            total, found = service.bank.page(
                caller.namespace,
                states=None if state is None else [state],
                containing=q,
                sort=sort,
                falling=order == "desc",
                limit=limit,
                offset=offset,
            )
            return MemoryPage(total=total, memories=[replace(one, problem=one.problem[:EXCERPT]) for one in found])

        return await _shown(service, MemoryPage, work)

    @api.get("/tacit/v1/memories/{id}", response_model=MemoryDetail)
    async def memory(id: str, caller: Admin) -> Response:
        """One memory: provenance, history, nearest neighbours, norms."""
        return await _shown(service, MemoryDetail, lambda: _detail(service, id, caller.namespace))

    @api.get("/tacit/v1/status")
    async def status(caller: Admin) -> ServerStatus:
        """Memories and jobs by state, and how the server is."""
        learner = service.learner
        return await service.storing(
            lambda: ServerStatus(
                model=service.config.served_name,
                backbone=service.backbone.name,
                fingerprint=service.backbone.fingerprint,
                namespace=caller.namespace,
                memories=by_name(service.bank.counts(caller.namespace)),
                jobs=service.jobs.counts(caller.namespace),
                learner=LearnerState(
                    runs=learner is not None,
                    alive=learner is not None and learner.alive,
                    restarts=0 if learner is None else learner.restarts,
                    failing=learner is not None and learner.failing,
                    reason=None if learner is None else learner.reason,
                ),
                draining=service.draining,
            )
        )


def _add_changing(api: FastAPI, service: Service) -> None:
    @api.post("/tacit/v1/memories/{id}/quarantine")
    async def quarantine(id: str, caller: Admin, body: Why | None = None) -> MemoryInfo:
        """Take a memory out of use; ``restore`` undoes it."""
        return await _moved(service, id, caller, body, "quarantined", State.QUARANTINED)

    @api.post("/tacit/v1/memories/{id}/restore")
    async def restore(id: str, caller: Admin, body: Why | None = None) -> MemoryInfo:
        """Bring a memory back: into use if it ever was in use, else as a candidate."""
        return await _moved(service, id, caller, body, "restored", None)

    @api.post("/tacit/v1/memories/{id}/activate")
    async def activate(id: str, caller: Admin, body: Why | None = None) -> MemoryInfo:
        """Take a memory into use on your own judgement, whatever its state: the way of one that was imported."""
        return await _moved(service, id, caller, body, "activated", State.ACTIVE)

    @api.delete("/tacit/v1/memories/{id}")
    async def delete(id: str, caller: Admin) -> Deleted:
        """Delete a memory for good."""
        check_name("the id", id)
        await changing(service, caller.key, lambda: service.bank.delete(id, caller.namespace))
        return Deleted(id=id)


def _add_files(api: FastAPI, service: Service) -> None:
    binary = {"schema": {"type": "string", "format": "binary"}}

    @api.get(
        "/tacit/v1/memories/{id}/export",
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: binary}, "description": "A safetensors file."}},
    )
    async def export(id: str, caller: Admin) -> Response:
        """A memory as a portable file."""
        check_name("the id", id)
        data = await service.storing(lambda: to_safetensors(service.bank.get(id, caller.namespace)))
        name = re.sub(r"[^A-Za-z0-9_-]", "_", id)[:100]
        return Response(
            data, media_type=MEDIA_TYPE, headers={"Content-Disposition": f'attachment; filename="{name}.safetensors"'}
        )

    @api.post(
        "/tacit/v1/memories/import",
        status_code=201,
        openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: binary}}},
    )
    async def import_(request: Request, caller: Admin) -> MemoryInfo:
        """Take in a portable file, as a candidate of this key's namespace."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != MEDIA_TYPE:
            raise Refused(415, f"an import is sent as Content-Type: {MEDIA_TYPE}", code="unsupported_media_type")
        memory = await take_in(service, await request.body(), caller.key)
        return await service.storing(lambda: service.bank.info(memory.id, caller.namespace))


def _add_jobs(api: FastAPI, service: Service) -> None:
    @api.get("/tacit/v1/jobs", response_model=JobPage)
    async def jobs(caller: Admin, state: JobState | None = None, limit: Limit = 100) -> Response:
        """The latest jobs, newest first."""
        states = None if state is None else [state]

        def work() -> JobPage:
            found = map(_row, service.jobs.list(caller.namespace, states, limit))
            return JobPage(jobs=[replace(job, problem=job.problem[:EXCERPT]) for job in found])

        return await _shown(service, JobPage, work)

    @api.get("/tacit/v1/jobs/{id}")
    async def job(id: str, caller: Asking) -> JobRow:
        """What became of a problem that was to be learned."""
        if not (caller.key.may("ask") or caller.key.may("admin")):
            raise forbidden("ask")
        check_name("the id", id)
        row = _found(await service.storing(lambda: service.jobs.get(id, caller.namespace)), id, caller.namespace)
        if caller.key.may("admin"):
            return row
        own = row.key_id if row.key_id == caller.key.id else ""
        return replace(row, memory_id=None, key_id=own, error=why_failed(row))

    @api.post("/tacit/v1/jobs/{id}/retry")
    async def retry(id: str, caller: Admin) -> JobRow:
        """Queue a failed job once more; one in another state stays as it is."""
        check_name("the id", id)
        retried = await changing(service, caller.key, lambda: service.jobs.retry(id, caller.namespace))
        return _found(retried, id, caller.namespace)


async def _shown(service: Service, kind: Any, work: Callable[[], Any]) -> Response:
    """What ``work`` finds, as FastAPI would show it, but written outside the event loop."""
    adapter = TypeAdapter(kind)
    body = await service.storing(lambda: written(adapter.dump_python(work(), mode="json")))
    return Response(body, media_type="application/json")


def by_name(counts: Mapping[State, int]) -> dict[str, int]:
    """Counts by the name of the state."""
    return {state.value: count for state, count in counts.items()}


def _row(job: Job) -> JobRow:
    return JobRow(**{name: getattr(job, name) for name in JobRow.__dataclass_fields__})


def _found(job: Job | None, id: str, namespace: str) -> JobRow:
    if job is None:
        raise not_found(f"namespace {namespace!r} has no job {id!r}", "job_not_found")
    return _row(job)


def _detail(service: Service, id: str, namespace: str) -> MemoryDetail:
    check_name("the id", id)
    bank = service.bank
    memory = bank.get(id, namespace)
    steps, why = memory.provenance.get("steps"), memory.provenance.get("why")
    norms = np.linalg.norm(memory.prompt.astype(np.float64), axis=1)
    return MemoryDetail(
        **asdict(bank.info(id, namespace)),
        provenance=memory.provenance,
        steps=steps if isinstance(steps, list) else [],
        why=why if isinstance(why, str) else None,
        history=bank.history(id, namespace),
        neighbours=_neighbours(bank, memory),
        prompt=SoftPrompt(
            tokens=len(memory.prompt),
            width=memory.prompt.shape[1],
            norm_low=float(norms.min()),
            norm_mean=float(norms.mean()),
            norm_high=float(norms.max()),
            embedding_norm=service.backbone.carrier.norm,
        ),
    )


def _neighbours(bank: Bank, memory: Memory) -> list[Neighbour]:
    hits = bank.search(
        memory.key,
        namespace=memory.namespace,
        fingerprint=memory.fingerprint,
        key_kind=memory.key_kind,
        k=NEIGHBOURS + 1,
        states=tuple(State),
    )
    found: list[Neighbour] = []
    for hit in [hit for hit in hits if hit.memory_id != memory.id][:NEIGHBOURS]:
        with suppress(MemoryNotFound):  # deleted meanwhile
            near = bank.info(hit.memory_id, memory.namespace)
            found.append(
                Neighbour(id=near.id, problem=near.problem[:EXCERPT], state=near.state, similarity=hit.similarity)
            )
    return found


async def _moved(service: Service, id: str, caller: Caller, body: Why | None, how: str, to: State | None) -> MemoryInfo:
    """Give a memory a state, or bring it back (None); nothing is written where it has the state."""
    check_name("the id", id)
    bank, namespace = service.bank, caller.namespace

    def move() -> MemoryInfo:
        states = [step.new for step in bank.history(id, namespace)]
        new = to or (State.ACTIVE if State.ACTIVE in states else State.CANDIDATE)
        if new is not states[-1]:
            bank.set_state(id, namespace, new, (body and body.reason) or f"{how} by hand")
        return bank.info(id, namespace)

    return await changing(service, caller.key, move)
