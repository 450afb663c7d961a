"""What both kinds of requests share: from a body to plans, and from answers to counts, jobs and the ``tacit`` report.

Builds on schemas, prompts, answering and jobs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection
from torch import Tensor

from tacit.engines.base import Request
from tacit.errors import MemoryNotFound
from tacit.routing import verdict
from tacit.seeds import derive
from tacit.server.api.errors import forbidden, invalid, not_found
from tacit.server.api.prompts import fitting, searchable, too_long
from tacit.server.api.schemas import MOST_CHOICES, ChatRequest, CompletionRequest
from tacit.server.keys import ApiKey
from tacit.server.live.answering import Answering, Plan
from tacit.server.live.service import Service

SUFFIX = ":tacit"


@dataclass(frozen=True)
class Caller:
    """Who asks, and since when.

    Attributes:
        key: decides namespace and rights.
        since: ``time.perf_counter`` at arrival.
    """

    key: ApiKey
    since: float

    @property
    def namespace(self) -> str:
        """Whose memories."""
        return self.key.namespace


def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks; ``Access`` has put it there."""
    found: Caller = connection.scope["state"]["caller"]
    return found


Asking = Annotated[Caller, Depends(caller_of)]


def remembers(service: Service, name: str) -> bool:
    """Whether the model of this name is the one with memory.

    Raises:
        Refused: there is no such model.
    """
    plain = service.config.served_name
    if name not in (plain, plain + SUFFIX):
        raise not_found(
            f"there is no model {name!r}; this server has {plain!r} and {plain + SUFFIX!r}", "model_not_found", "model"
        )
    return name != plain


async def problem_of(service: Service, named: str | None, implied: str) -> str:
    """What memories are found by, "" for nothing: the problem that the request names, or what it implies.

    Raises:
        Refused: the named problem is more than the model can read.
    """
    problem = named or implied
    if await service.computing(lambda: searchable(service.backbone, problem)):
        return problem
    if named is not None:
        raise too_long(service.backbone, f"a problem of {len(named)} characters is too much", "tacit.problem")
    return ""


def plan(
    service: Service,
    caller: Caller,
    body: ChatRequest | CompletionRequest,
    ids: Tensor,
    problem: str,
    *,
    top: int,
    wanted: int | None,
    memory: bool,
) -> Answering:
    """The answering of one prompt.

    Args:
        ids: of the prompt [T].
        problem: what memories are found by, "" for nothing.
        top: alternatives beside each token.
        wanted: most new tokens, None for the default.
        memory: False for the plain model.

    Raises:
        Refused: the key may not ask, or prompt and answer do not fit.
    """
    if not caller.key.may("ask"):
        raise forbidden("ask")
    temperature = 1.0 if body.temperature is None else body.temperature
    n = body.n or 1
    seed = secrets.randbits(62) if body.seed is None else body.seed
    asked = Request(
        ids,
        None,
        n,
        temperature,
        1.0 if body.top_p is None else body.top_p,
        fitting(service.backbone, ids, wanted, service.config.sampling.max_tokens, service.config.learn.tokens),
        tuple(derive(seed, "serve", index) for index in range(n)) if temperature > 0 else (),
        body.stops,
        top=top,
    )
    options = body.tacit
    choice = options.memory if memory and problem.strip() else "off"
    return Answering(service, Plan(asked, caller.namespace, problem, choice, options.route == "verify"))


def refuse_many(prompts: int, n: int | None) -> None:
    """Refused if a request asks for more rollouts than one may."""
    if prompts * (n or 1) > MOST_CHOICES:
        raise invalid(f"{prompts} prompts with n = {n} are more than {MOST_CHOICES} rollouts; split the request", "n")


def usage(answerings: Sequence[Answering]) -> dict[str, int]:
    """Prompt tokens once, and the tokens of every rollout, whichever was returned."""
    read = sum(len(one.plan.asked.ids) for one in answerings)
    made = sum(one.generated for one in answerings)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


async def settle(
    service: Service, caller: Caller, model: str, answerings: Sequence[Answering], *, learn: bool, why_not: str
) -> dict[str, Any]:
    """Count what routing made of the memories, submit what may be learned, tell the feed, and report.

    Args:
        learn: whether this request may be learned from at all; the key's rights are asked besides.
        why_not: the reason where it may not.

    Returns:
        The ``tacit`` part of the response: of the first prompt, where there are several.
    """
    meters = service.metrics.of(caller.namespace)
    reports = []
    for one in answerings:
        for index in sorted(one.routes):
            meters.routes.labels(model, one.routes[index].name).inc()
        reports.append(await service.storing(lambda one=one: _store(service, caller, one, learn, why_not)))  # type: ignore[misc]
    counted = usage(answerings)
    meters.prompt_tokens.labels(model).inc(counted["prompt_tokens"])
    meters.tokens.labels(model).inc(counted["completion_tokens"])
    seconds = time.perf_counter() - caller.since
    meters.seconds.labels(model).observe(seconds)
    for one, report in zip(answerings, reports, strict=True):
        told = {name: report[name] for name in ("route", "why", "memory", "similarity", "learning")}
        service.feed.add(
            caller.namespace, model=model, seconds=seconds, tokens=one.generated, problem=one.plan.problem, **told
        )
    return {**reports[0], **({"prompts": reports} if len(reports) > 1 else {})}


def _store(service: Service, caller: Caller, one: Answering, learn: bool, why_not: str) -> dict[str, Any]:
    first = one.routes.get(0)
    judged = one.hit if first is not None and one.plan.verify else None
    job, learning, outcome = None, why_not, "not asked for"
    if learn and not caller.key.may("learn"):
        learn, learning, outcome = False, "the key has no right to learn", "refused"
    # One transaction, because each waits for the disk; none where there is nothing to write.
    with service.bank.transaction() if judged or learn else nullcontext():
        if judged is not None:
            assert first is not None
            with suppress(MemoryNotFound):  # deleted meanwhile
                service.bank.count(judged.memory_id, caller.namespace, uses=1, **verdict(first))
        if learn:
            submitted = service.jobs.submit(caller.namespace, one.plan.problem, caller.key)
            learning = submitted.why
            outcome = "refused" if submitted.job is None else "queued" if learning == "queued" else "known"
            job = None if submitted.job is None else {"id": submitted.job.id, "state": str(submitted.job.state)}
    # Not ``learning``: it may quote the problem, and a label has few values.
    service.metrics.of(caller.namespace).jobs.labels(outcome).inc()
    return {
        "memory": one.hit and one.hit.memory_id,
        "memories": [{"id": one.hit.memory_id, "similarity": one.hit.similarity}] if one.hit else [],
        "similarity": one.hit and one.hit.similarity,
        "route": None if first is None else first.name,
        "why": None if first is None else first.why,
        "routes": [one.routes[index].name for index in sorted(one.routes)],
        "job": job,
        "learning": learning,
    }
