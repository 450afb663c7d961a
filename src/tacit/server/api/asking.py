"""What both kinds of requests share: from a body to answerings, from answers to counts, jobs and the ``tacit`` report.

Builds on schemas, prompts, streaming, answering and jobs.
"""

from __future__ import annotations

import math
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from fastapi import Request as HTTPRequest
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from torch import Tensor

from tacit.engines.base import Request
from tacit.seeds import derive
from tacit.server.api import prompts
from tacit.server.api.errors import forbidden, invalid, not_found
from tacit.server.api.schemas import MOST_CHOICES, ChatRequest, CompletionRequest
from tacit.server.api.streaming import sent, unless_gone
from tacit.server.keys import ApiKey
from tacit.server.live.answering import Answering, Plan
from tacit.server.live.service import Service

SUFFIX = ":tacit"

LEAST_LOGPROB = -9999.0
"""For a probability of 0, whose logarithm JSON cannot hold; OpenAI's clients know the number."""


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


class Exchange(ABC):
    """One request and its answer, of either kind.

    Args:
        service, caller, body: what is asked, where and by whom.
        kind: what the answer's id begins with.
        count: prompts in it.

    Attributes:
        memory: whether the model that is asked is the one with memory.
        head: what every part of the answer begins with.
        wants_usage: whether a stream ends with the usage.
        answerings: one per prompt, once it is prepared.

    Raises:
        Refused: there is no such model, or the request asks for more rollouts than one may, or contradicts itself.
    """

    def __init__(
        self, service: Service, caller: Caller, body: ChatRequest | CompletionRequest, kind: str, count: int = 1
    ) -> None:
        self.service, self.caller, self.body = service, caller, body
        plain, n = service.config.served_name, body.n or 1
        if body.model not in (plain, plain + SUFFIX):
            raise not_found(
                f"there is no model {body.model!r}; this server has {plain!r} and {plain + SUFFIX!r}",
                "model_not_found",
                "model",
            )
        if count * n > MOST_CHOICES:
            raise invalid(f"{count} prompts with n = {n} are more than {MOST_CHOICES} rollouts; split the request", "n")
        if body.stream_options and not body.stream:
            raise invalid("stream_options needs stream to be true", "stream_options")
        self.memory = body.model != plain
        self.head: dict[str, Any] = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }
        self.wants_usage = body.stream_options is not None and body.stream_options.include_usage
        self.answerings: list[Answering] = []

    @abstractmethod
    async def prepare(self) -> None:
        """Make the answerings."""

    @abstractmethod
    async def whole(self) -> dict[str, Any]:
        """The answer."""

    @abstractmethod
    def events(self) -> AsyncIterator[str]:
        """The answer, piece by piece."""

    @abstractmethod
    def not_learnable(self) -> str | None:
        """Why the model with memory may not learn from such a request that does not forbid it; None if it may."""

    async def response(self, request: HTTPRequest) -> Response:
        """The answer, streamed or whole."""
        await self.prepare()
        if self.body.stream:
            return await sent(self.events())
        return JSONResponse(await unless_gone(request, self.whole))

    async def plan(
        self, ids: Tensor, implied: str, *, context: int, top: int, wanted: int | None, memory: bool
    ) -> None:
        """Add the answering of one prompt.

        Args:
            ids: of the prompt [T].
            implied: the problem that it stands for, where the request names none.
            context: most tokens of a sequence, for the engine that will serve it.
            top: alternatives beside each token.
            wanted: most new tokens, None for the default.
            memory: False for the plain model.

        Raises:
            Refused: the key may not ask, the named problem cannot be read, or prompt and answer do not fit.
        """
        service, body, options, config = self.service, self.body, self.body.tacit, self.service.config
        problem = options.problem or implied
        if not await service.computing(lambda: prompts.searchable(service.backbone, problem, context)):
            if options.problem is not None:
                raise prompts.too_long(context, f"a problem of {len(problem)} characters is too much", "tacit.problem")
            problem = ""
        if not self.caller.key.may("ask"):
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
            prompts.new_tokens(context, len(ids), wanted, config.sampling.max_tokens, config.learn.tokens),
            tuple(derive(seed, "serve", index) for index in range(n)) if temperature > 0 else (),
            body.stops,
            top=top,
        )
        choice = options.memory if memory and problem.strip() else "off"
        room = context - len(ids) - asked.max_tokens
        verify = options.route == "verify"
        self.answerings.append(Answering(service, Plan(asked, self.caller.namespace, problem, room, choice, verify)))

    def usage(self) -> dict[str, int]:
        """Prompt tokens once, and the tokens of every rollout, whichever was returned."""
        read = sum(len(one.plan.asked.ids) for one in self.answerings)
        made = sum(one.generated for one in self.answerings)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    def text_of(self, token_id: int) -> str:
        """A token, as it is listed."""
        return str(self.service.backbone.tokenizer.decode([token_id]))

    async def settle(self) -> dict[str, Any]:
        """Count what routing made of the memories, submit what may be learned, tell the feed, and report.

        Returns:
            The ``tacit`` part of the response: of the first prompt, where there are several.
        """
        service, caller, model = self.service, self.caller, self.body.model
        meters, reports = service.metrics.of(caller.namespace), []
        for one in self.answerings:
            for index in sorted(one.routes):
                meters.routes.labels(model, one.routes[index].name).inc()
            reports.append(await service.storing(lambda one=one: self._store(one)))  # type: ignore[misc]
        counted = self.usage()
        meters.prompt_tokens.labels(model).inc(counted["prompt_tokens"])
        meters.tokens.labels(model).inc(counted["completion_tokens"])
        seconds = time.perf_counter() - caller.since
        meters.seconds.labels(model).observe(seconds)
        for one, report in zip(self.answerings, reports, strict=True):
            told = {name: report[name] for name in ("route", "why", "memory", "similarity", "learning")}
            service.feed.add(
                caller.namespace, model=model, seconds=seconds, tokens=one.generated, problem=one.plan.problem, **told
            )
        return {**reports[0], **({"prompts": reports} if len(reports) > 1 else {})}

    def _store(self, one: Answering) -> dict[str, Any]:
        service, namespace, first = self.service, self.caller.namespace, one.routes.get(0)
        judged = one.hits if first is not None and one.plan.verify else ()
        job, outcome, learning = None, "not asked for", self._why_not()
        learn = not learning
        if learn and not self.caller.key.may("learn"):
            learn, learning, outcome = False, "the key has no right to learn", "refused"
        # One transaction, because each waits for the disk; none where there is nothing to write.
        with service.bank.transaction() if judged or learn else nullcontext():
            if judged and first is not None:
                service.recall(namespace).count(judged, first)
            if learn:
                submitted = service.jobs.submit(namespace, one.plan.problem, self.caller.key)
                learning = submitted.why
                outcome = "refused" if submitted.job is None else "queued" if learning == "queued" else "known"
                job = None if submitted.job is None else {"id": submitted.job.id, "state": str(submitted.job.state)}
        # Not ``learning``: it may quote the problem, and a label has few values.
        service.metrics.of(namespace).jobs.labels(outcome).inc()
        return {
            "memory": one.hits[0].memory_id if one.hits else None,
            "memories": [{"id": hit.memory_id, "similarity": hit.similarity} for hit in one.hits],
            "similarity": one.hits[0].similarity if one.hits else None,
            "route": None if first is None else first.name,
            "why": None if first is None else first.why,
            "routes": [one.routes[index].name for index in sorted(one.routes)],
            "job": job,
            "learning": learning,
        }

    def _why_not(self) -> str:
        """Why this request may not be learned from, whoever sends it; "" if it may."""
        if not self.memory:
            return "the plain model does not learn"
        if self.body.tacit.learn is False:
            return "the request forbids it"
        return self.not_learnable() or ""


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else LEAST_LOGPROB
