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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import Depends
from fastapi import Request as HTTPRequest
from starlette.requests import HTTPConnection
from starlette.responses import Response
from torch import Tensor

from tacit.engines.base import Progress, Request, Rollout
from tacit.errors import BankError
from tacit.seeds import derive
from tacit.server.api import prompts
from tacit.server.api.errors import Refused, busy, forbidden, invalid, not_found
from tacit.server.api.rights import present
from tacit.server.api.schemas import MOST_CHOICES, ChatRequest, CompletionRequest
from tacit.server.api.streaming import DONE, bursts, event, merged, sent, unless_gone, written
from tacit.server.api.text import Detokeniser
from tacit.server.keys import OPEN_KEY, ApiKey
from tacit.server.live import evidence
from tacit.server.live.answering import Answering, Plan
from tacit.server.live.evidence import DEFAULT_TEMPERATURE, DEFAULT_TOP_P, asked_own_way
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
        if body.tacit.memory not in ("auto", "off") and not caller.key.may("admin"):
            raise forbidden("admin", 'only a key with the right "admin" may name a memory; leave tacit.memory out')
        self.memory = body.model != plain
        self.wants_usage = body.stream_options is not None and body.stream_options.include_usage
        self.beside: dict[str, Any] = {}
        self.answerings: list[Answering] = []
        self._drawn = self._listed = 0
        self._head = {"id": f"{self.kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}

    @abstractmethod
    async def prepare(self) -> None:
        """Make the answerings."""

    @abstractmethod
    async def choices(self) -> list[Callable[[], dict[str, Any]]]:
        """What makes those of the whole answer; called outside the event loop."""

    @abstractmethod
    def pieces(self, index: int, one: Progress, shown: str) -> Iterator[dict[str, Any]]:
        """The parts of a stream that tell of a token of the choice ``index``; ``shown`` can be shown now."""

    @abstractmethod
    def not_learnable(self) -> str | None:
        """Why the model with memory may not learn from such a request that does not forbid it; None if it may."""

    async def response(self, request: HTTPRequest) -> Response:
        """The answer, streamed or whole."""
        await self.prepare()
        prompts, key = self.service.prompts, self.caller.key
        if not prompts.free(key.id, len(self.answerings), shared=key.id != OPEN_KEY):
            raise busy("as many prompts are being answered as leave other keys a share; try again later")
        if self.body.stream:
            return await sent(request, self._held(self._events()))
        with prompts.held(key.id, len(self.answerings)):
            whole = await unless_gone(request, self._whole)
        body = whole if isinstance(whole, bytes) else await self.service.writing(lambda: written(whole))
        return Response(body, media_type="application/json")

    async def rollouts(self) -> dict[int, Rollout]:
        """All that is generated, by the number of the choice."""
        found = {}
        async for prompt, one in merged([answering.tokens(whole=True) for answering in self.answerings]):
            assert one.rollout is not None
            found[prompt * self.n + one.index] = one.rollout
        return found

    async def _whole(self) -> dict[str, Any] | bytes:
        # One by one, since the interpreter does nothing else while one of them is written.
        choices = [
            await self.service.writing(lambda make=make: written(make()))  # type: ignore[misc]
            for make in await self.choices()
        ]
        ends = {"usage": self._usage(), "tacit": await self._settle()}
        head, tail = written({**self._head, "object": self.object}), written(ends)
        return b'%s,"choices":[%s],%s' % (head[:-1], b",".join(choices), tail[1:])

    async def _events(self) -> AsyncIterator[str]:
        texts = [self.text() for _ in range(self.n * len(self.answerings))]
        left = len(texts)
        async for burst in bursts([answering.tokens() for answering in self.answerings]):
            left -= sum(one.rollout is not None for _, one in burst)
            told = await self.service.writing(lambda burst=burst: self._pieces(burst, texts))  # type: ignore[misc]
            if not left:
                told[-1]["tacit"] = await self._settle()
            if told:
                yield await self.service.writing(lambda told=told: "".join(map(event, told)))  # type: ignore[misc]
        if self.wants_usage:
            yield event({**self._head, "object": self.piece, "choices": [], "usage": self._usage()})
        yield DONE

    async def _held(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        """The same, with the places of its prompts held meanwhile."""
        with self.service.prompts.held(self.caller.key.id, len(self.answerings)):
            try:
                async for one in events:
                    yield one
            finally:
                await events.aclose()  # type: ignore[attr-defined]

    def _pieces(self, burst: Sequence[tuple[int, Progress]], texts: Sequence[Detokeniser]) -> list[dict[str, Any]]:
        head, found = {**self._head, "object": self.piece}, []
        for prompt, one in burst:
            index, last = prompt * self.n + one.index, one.rollout is not None
            shown = texts[index].push(one.token_id, last=last)
            found += [{**head, "choices": [piece], **self.beside} for piece in self.pieces(index, one, shown)]
        return found

    async def plan(
        self,
        ids: Tensor,
        implied: str,
        *,
        context: int,
        top: int,
        wanted: int | None,
        memory: bool,
        begun: str = "",
        grammar: str = "",
        echoed: bool = False,
    ) -> None:
        """Add the answering of one prompt.

        Args:
            implied: the problem that it stands for, where the request names none.
            context: most tokens of a sequence, for the engine that will serve it.
            wanted: most new tokens, None for the default.
            memory: False for the plain model.
            begun: what the answer has already: answers are found in all of it.
            echoed: the prompt is listed too, in every choice.

        Raises:
            Refused: the key may not ask, the named problem cannot be read, or prompt and answer do not fit.
        """
        service, body, options, config = self.service, self.body, self.body.tacit, self.service.config
        problem = options.problem or implied
        own = await service.computing(lambda: prompts.searchable(service.backbone, problem, context))
        if own is None:
            if options.problem is not None:
                raise prompts.too_long(context, f"a problem of {len(problem)} characters is too much", "tacit.problem")
            problem = ""
        if not self.caller.key.may("ask"):
            raise forbidden("ask")
        temperature = DEFAULT_TEMPERATURE if body.temperature is None else body.temperature
        seed = secrets.randbits(62) if body.seed is None else body.seed
        asked = Request(
            ids,
            None,
            self.n,
            temperature,
            DEFAULT_TOP_P if body.top_p is None else body.top_p,
            self._room(context, ids, wanted),
            tuple(derive(seed, "serve", index) for index in range(self.n)) if temperature > 0 else (),
            self.stops,
            top=top,
            top_k=max(0, body.top_k or 0),  # -1 for all tokens is vLLM's way to say it
            min_p=body.min_p or 0.0,
            grammar=grammar,
        )
        self._refuse_costly(asked, echoed)
        choice = options.memory if memory and problem.strip() else "off"
        room = context - len(ids) - asked.max_tokens
        verify = options.route == "verify"
        read = (lambda one: begun + self.text().whole(one.token_ids)) if begun else None
        stops, most, seeded = service.backbone.stop, self._room(context, ids, None), body.seed is not None
        own_way = own is not None and asked_own_way(asked, own, stops, most, config.sampling, seeded=seeded)
        plan = Plan(asked, self.caller.namespace, problem, room, choice, verify, own_way and not begun, read)
        self.answerings.append(Answering(service, plan))

    def _refuse_costly(self, asked: Request, echoed: bool) -> None:
        """Refuse what would take too much of everybody's time to draw, or to write."""
        limits, body = self.service.config.limits, self.body
        self._drawn += asked.n * asked.max_tokens
        if self._drawn > limits.tokens:
            said = f"{self.n} rollouts of {asked.max_tokens} tokens for each prompt"
            raise invalid(f"{said} are more than {limits.tokens} in all; lower n or max_tokens", "max_tokens")
        scored = 0 if body.logprobs is None or body.logprobs is False else asked.max_tokens
        self._listed += asked.n * (scored + echoed * len(asked.ids)) * (1 + asked.top)
        if self._listed > limits.listed:
            top = "top_logprobs" if isinstance(body, ChatRequest) else "logprobs"
            raise invalid(
                f"log-probabilities and echoes of more than {limits.listed} tokens, alternatives among them, are too "
                f"many for one response; lower n, max_tokens or {top}, or send fewer prompts",
                top,
            )

    def _room(self, context: int, ids: Tensor, wanted: int | None) -> int:
        config = self.service.config
        return prompts.new_tokens(context, len(ids), wanted, config.sampling.max_tokens, config.learn.tokens)

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
            if one.pairs:  # whether memory helps is how two answers compare, whatever votes made of them
                told |= {"route": one.pairs[0].name, "why": one.pairs[0].why}
            service.feed.add(caller.namespace, **told)
        if not caller.key.may("admin"):
            reports = [{**report, "memory": None, "memories": [], "similarity": None} for report in reports]
        return {**reports[0], **({"prompts": reports} if len(reports) > 1 else {})}

    def _store(self, one: Answering) -> dict[str, Any]:
        service, namespace, first = self.service, self.caller.namespace, one.routes.get(0)
        compared = one.pairs.get(0)
        judged = one.hit if compared is not None and one.telling else None
        job, outcome, learning = None, "not asked for", self._why_not()
        learn = not learning
        if learn and not self.caller.key.may("learn"):
            learn, learning, outcome = False, "the key has no right to learn", "refused"
        verifier = service.verifier
        # One transaction, because each waits for the disk; none where there is nothing to write.
        try:
            with service.bank.transaction() if judged or learn else nullcontext():
                key = present(service, self.caller.key)
                if judged is not None and compared is not None:
                    sure, text = verifier is not None and verifier.calibrated, one.plan.problem
                    evidence.count(service.bank, key, judged.memory_id, one.origin, text, compared, calibrated=sure)
                if learn:
                    submitted = service.jobs.submit(namespace, one.plan.problem, key)
                    learning = submitted.why
                    outcome = "refused" if submitted.job is None else "queued" if learning == "queued" else "known"
                    job = None if submitted.job is None else {"id": submitted.job.id, "state": str(submitted.job.state)}
            service.unstored = service.unstored and not (judged or learn)
        except Refused:
            raise  # the key has gone
        except Exception as error:  # the answer has been made, and is no worse for it
            LOG.warning("an answer could not be counted: %s", error, exc_info=not isinstance(error, BankError))
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
