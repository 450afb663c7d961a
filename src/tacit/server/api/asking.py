"""What both kinds of requests share: from a body to answerings, from answers to counts, jobs and the ``tacit`` report.

Builds on schemas, streaming, text, keys and answering. A kind of request says how it is read and shown.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import Depends
from fastapi import Request as HTTPRequest
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from torch import Tensor

from tacit.engines.base import Progress, Request, Rollout
from tacit.errors import BankError
from tacit.seeds import derive
from tacit.server.api import prompts
from tacit.server.api.errors import forbidden, invalid, not_found
from tacit.server.api.schemas import MOST_CHOICES, ChatRequest, CompletionRequest
from tacit.server.api.streaming import DONE, event, merged, sent, unless_gone
from tacit.server.api.text import Detokeniser
from tacit.server.keys import ApiKey
from tacit.server.live.answering import Answering, Plan
from tacit.server.live.service import Service

SUFFIX = ":tacit"

LOG = logging.getLogger("tacit.server")

UNSTORED = "could not be queued: the bank cannot be written now; ask again later to have it learned"
"""What becomes of the wish to learn where a disk is full."""

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
        count: prompts in it.

    Attributes:
        kind, object, piece: what the answer's id begins with, and what a whole answer and a streamed piece are called.
        memory: whether the model that is asked is the one with memory.
        beside: what every piece of a stream has beside its choices.
        answerings: one per prompt, once it is prepared.

    Raises:
        Refused: there is no such model, or the request asks for more rollouts than one may, or contradicts itself.
    """

    kind: ClassVar[str]
    object: ClassVar[str]
    piece: ClassVar[str]

    def __init__(self, service: Service, caller: Caller, body: ChatRequest | CompletionRequest, count: int = 1) -> None:
        self.service, self.caller, self.body = service, caller, body
        plain, self.n = service.config.served_name, body.n or 1
        if body.model not in (plain, plain + SUFFIX):
            known = f"this server has {plain!r} and {plain + SUFFIX!r}"
            raise not_found(f"there is no model {body.model!r}; {known}", "model_not_found", "model")
        if count * self.n > MOST_CHOICES:
            said = f"{count} prompts with n = {self.n} are more than {MOST_CHOICES} rollouts; split the request"
            raise invalid(said, "n")
        if body.stream_options and not body.stream:
            raise invalid("stream_options needs stream to be true", "stream_options")
        self.memory = body.model != plain
        self.wants_usage = body.stream_options is not None and body.stream_options.include_usage
        self.beside: dict[str, Any] = {}
        self.answerings: list[Answering] = []
        self._head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}

    @abstractmethod
    async def prepare(self) -> None:
        """Make the answerings."""

    @abstractmethod
    async def choices(self) -> list[dict[str, Any]]:
        """Those of the whole answer."""

    @abstractmethod
    def pieces(self, index: int, one: Progress, shown: str) -> Iterator[dict[str, Any]]:
        """The parts of a stream that tell of a token of the choice ``index``, of which ``shown`` can be shown now."""

    @abstractmethod
    def not_learnable(self) -> str | None:
        """Why the model with memory may not learn from such a request that does not forbid it; None if it may."""

    async def response(self, request: HTTPRequest) -> Response:
        """The answer, streamed or whole."""
        await self.prepare()
        if self.body.stream:
            return await sent(self._events())
        return JSONResponse(await unless_gone(request, self._whole))

    async def rollouts(self) -> dict[int, Rollout]:
        """All that is generated, by the number of the choice."""
        found = {}
        async for prompt, one in merged([answering.tokens(whole=True) for answering in self.answerings]):
            assert one.rollout is not None
            found[prompt * self.n + one.index] = one.rollout
        return found

    async def _whole(self) -> dict[str, Any]:
        head = {**self._head, "object": self.object, "choices": await self.choices()}
        return {**head, "usage": self._usage(), "tacit": await self._settle()}

    async def _events(self) -> AsyncIterator[str]:
        head = {**self._head, "object": self.piece}
        texts = [self.text() for _ in range(self.n * len(self.answerings))]
        left = len(texts)
        async for prompt, one in merged([answering.tokens() for answering in self.answerings]):
            index = prompt * self.n + one.index
            left -= one.rollout is not None
            for choice in self.pieces(index, one, texts[index].push(one.token_id, last=one.rollout is not None)):
                is_last = choice["finish_reason"] is not None and not left
                extra = {"tacit": await self._settle()} if is_last else {}
                yield event({**head, "choices": [choice], **self.beside, **extra})
        if self.wants_usage:
            yield event({**head, "choices": [], "usage": self._usage()})
        yield DONE

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
        seed = secrets.randbits(62) if body.seed is None else body.seed
        asked = Request(
            ids,
            None,
            self.n,
            temperature,
            1.0 if body.top_p is None else body.top_p,
            prompts.new_tokens(context, len(ids), wanted, config.sampling.max_tokens, config.learn.tokens),
            tuple(derive(seed, "serve", index) for index in range(self.n)) if temperature > 0 else (),
            self.stops,
            top=top,
        )
        choice = options.memory if memory and problem.strip() else "off"
        room = context - len(ids) - asked.max_tokens
        verify = options.route == "verify"
        self.answerings.append(Answering(service, Plan(asked, self.caller.namespace, problem, room, choice, verify)))

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end the text."""
        return self.body.stops

    def _usage(self) -> dict[str, int]:
        """Prompt tokens once, and the tokens of every rollout, whichever was returned."""
        read = sum(len(one.plan.asked.ids) for one in self.answerings)
        made = sum(one.generated for one in self.answerings)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    def text(self) -> Detokeniser:
        """The text of a rollout, from its tokens."""
        return Detokeniser(self.service.backbone.tokenizer, self.stops)

    def text_of(self, token_id: int) -> str:
        """A token, as it is listed."""
        return str(self.service.backbone.tokenizer.decode([token_id]))

    async def _settle(self) -> dict[str, Any]:
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
        counted = self._usage()
        meters.prompt_tokens.labels(model).inc(counted["prompt_tokens"])
        meters.tokens.labels(model).inc(counted["completion_tokens"])
        seconds = time.perf_counter() - caller.since
        meters.seconds.labels(model).observe(seconds)
        for one, report in zip(self.answerings, reports, strict=True):
            told = {name: report[name] for name in ("route", "why", "memory", "similarity", "learning")}
            told |= {"model": model, "seconds": seconds, "tokens": one.generated, "problem": one.plan.problem}
            service.feed.add(caller.namespace, **told)
        return {**reports[0], **({"prompts": reports} if len(reports) > 1 else {})}

    def _store(self, one: Answering) -> dict[str, Any]:
        service, namespace, first = self.service, self.caller.namespace, one.routes.get(0)
        judged = one.hit if first is not None and one.plan.verify else None
        job, outcome, learning = None, "not asked for", self._why_not()
        learn = not learning
        if learn and not self.caller.key.may("learn"):
            learn, learning, outcome = False, "the key has no right to learn", "refused"
        # One transaction, because each waits for the disk; none where there is nothing to write.
        try:
            with service.bank.transaction() if judged or learn else nullcontext():
                if judged is not None and first is not None:
                    service.recall(namespace).count(judged, first)
                if learn:
                    submitted = service.jobs.submit(namespace, one.plan.problem, self.caller.key)
                    learning = submitted.why
                    outcome = "refused" if submitted.job is None else "queued" if learning == "queued" else "known"
                    job = None if submitted.job is None else {"id": submitted.job.id, "state": str(submitted.job.state)}
            service.unstored = service.unstored and not (judged or learn)
        except BankError as error:  # the answer has been made, and is no worse for it
            LOG.warning("an answer could not be counted or queued: %s", error)
            service.unstored, job, outcome = True, None, "unstored"
            learning = UNSTORED if learn else learning
        # Not ``learning``: it may quote the problem, and a label has few values.
        service.metrics.of(namespace).jobs.labels(outcome).inc()
        return {
            "memory": one.hit and one.hit.memory_id,
            "memories": [] if one.hit is None else [{"id": one.hit.memory_id, "similarity": one.hit.similarity}],
            "similarity": one.hit and one.hit.similarity,
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
