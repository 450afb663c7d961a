"""One request, answered: recall, generate with and without memory, route. The agent's loop for a caller who waits.

Builds on the service and on routing. A request with nothing to decide (no memory, or memory alone) is passed on token
by token as the engine draws it. Where two answers have to be compared, both are generated in one batch. The chosen one
is passed on when both are there. Either way the caller sees one stream of ``Progress``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from tacit.bank.base import Hit
from tacit.engines.base import Alternatives, Progress, Request, Rollout
from tacit.errors import EngineError
from tacit.judges.verifiers import Candidate, VoteShare, candidates
from tacit.memory import Memory
from tacit.routing import NO_MEMORY, Route, by_votes, route
from tacit.seeds import derive
from tacit.server.live.service import Service

OFF = Route("off", "memory is off for this request")
ALONE = Route("memory", "asked with the memory alone")
NO_ROOM = Route("no_memory", "the most similar memory does not fit beside the prompt and its answer")


@dataclass(frozen=True)
class Plan:
    """A request, understood.

    Attributes:
        room: positions that a soft prompt may take beside prompt and answer.
        memory: "auto", "off" or an id.
        verify: compare with the plain answer.
        own_way: it is asked as the server itself would ask, so that what comes of it is evidence.
        read: the text that a rollout is a part of, where the request began it; None where it is the rollout's own.
    """

    asked: Request
    namespace: str
    problem: str
    room: int
    memory: str
    verify: bool
    own_way: bool = False
    read: Callable[[Rollout], str] | None = None


@dataclass
class Answering:
    """The state of one answer; ``tokens`` makes it.

    Attributes:
        hit: the recalled memory.
        routes: per choice, known when its first token is passed on.
        generated: tokens of every rollout made for this request, whichever was returned.
        soft_prompt: of the recalled memory, float32 [K, d].
        origin: id of the key that the memory came from, as its provenance has it.
        pairs: how each choice's two responses compare, where there are two; ``routes`` says what is returned.
        telling: whether the first pair is evidence of the memory.
    """

    service: Service
    plan: Plan
    hit: Hit | None = None
    routes: dict[int, Route] = field(default_factory=dict)
    generated: int = 0
    soft_prompt: Tensor | None = None
    origin: object = None
    pairs: dict[int, Route] = field(default_factory=dict)
    telling: bool = False
    _why: Route = OFF

    async def recall(self) -> None:
        """Find the memory to answer with."""
        if self.plan.memory == "off":
            return
        found = await self.service.computing(self._found)
        self._why = NO_MEMORY if found is None else NO_ROOM
        if found is not None and self.service.backbone.carrier.columns(found[1].prompt) <= self.plan.room:
            self.hit, self.soft_prompt, self._why = found[0], torch.tensor(found[1].prompt), ALONE
            self.origin = found[1].provenance.get("key")

    def _found(self) -> tuple[Hit, Memory] | None:
        plan = self.plan
        recall = self.service.recall(plan.namespace)
        named = None if plan.memory == "auto" else self.service.bank.get(plan.memory, plan.namespace)
        [key] = keys = recall.keys([plan.problem])
        if named is None:
            return recall.recalled(keys)[0]
        similarity = float(key.astype(float) @ named.key.astype(float)) if len(key) == len(named.key) else 0.0
        return Hit(named.id, named.problem_id, similarity), named

    async def tokens(self, *, whole: bool = False) -> AsyncIterator[Progress]:
        """Every token of every choice, each choice's last with its rollout.

        Args:
            whole: the caller wants whole rollouts alone: only each choice's last token is passed on.

        Raises:
            EngineBusy, EngineError: the engine cannot serve the request.
        """
        plain = self.plan.asked
        if self.soft_prompt is None or not self.plan.verify:
            async for progress in self._streamed(replace(plain, soft_prompt=self.soft_prompt), whole):
                self.routes.setdefault(progress.index, self._why)
                yield progress
            return
        votes = self._votes()
        asked = [plain, replace(plain, soft_prompt=self.soft_prompt)]
        asked += [replace(votes, soft_prompt=r.soft_prompt) for r in asked] if votes is not None else []
        rollouts = await asyncio.gather(*[self._whole(request) for request in asked])
        zero, memory = rollouts[:2]
        task = self.service.task.on(self.plan.problem)

        read, writing = self.plan.read, self.service.writing

        def heard(one: Rollout) -> tuple[Rollout, str | None]:
            one = one if read is None else replace(one, text=read(one))
            return one, task.extract(one.text)

        # One by one: an answer may take a while to find, and others' texts are read and written meanwhile.
        found = [[await writing(partial(heard, one)) for one in arm] for arm in rollouts]

        def compared() -> list[tuple[Candidate, Candidate]]:
            said = [[rollout for rollout, _ in arm] for arm in found]
            answers = [[answer for _, answer in arm] for arm in found]
            voters = answers[2:] or answers[:2]
            arms = [candidates(*arm, task) for arm in zip(said[:2], answers[:2], voters, strict=True)]
            return list(zip(*arms, strict=True))

        pairs = await writing(compared)
        verifier = self.service.verifier
        routes = await self.service.computing(lambda: route(self.plan.problem, pairs, verifier, task))
        spoke = any(one.answer is not None for one in pairs[0])
        self.telling = self.plan.own_way and self.plan.memory == "auto" and spoke
        self.pairs = dict(enumerate(routes))
        taken = [(memory if decided.takes_memory else zero)[index] for index, decided in enumerate(routes)]
        if len(found) > 2 and self._one_of_many:
            drawn_and_read = zip(rollouts, found, strict=True)
            said = [[(one, answer) for one, (_, answer) in zip(*arm, strict=True)] for arm in drawn_and_read]
            routes[0], taken[0] = await writing(lambda: by_votes(said, routes[0], task))
        for index, chosen in enumerate(taken):
            self.routes[index] = routes[index]
            for place, drawn in enumerate(listed(chosen), 1):
                last = place == len(chosen.token_ids)
                if last or not whole:
                    yield Progress(0, index, *drawn, chosen if last else None)

    def _votes(self) -> Request | None:
        """Further samples of each side, where the verifier counts votes and the request asks for too few."""
        asked, config = self.plan.asked, self.service.config
        if not isinstance(self.service.verifier, VoteShare) or (asked.temperature > 0 and asked.n >= config.votes):
            return None
        seeds = tuple(derive(config.seed, self.plan.problem, "votes", number) for number in range(config.votes))
        how, top = config.sampling, asked.top if self._one_of_many else 0
        return replace(
            asked,
            n=config.votes,
            temperature=how.temperature,
            top_p=how.top_p,
            seeds=seeds,
            top=top,
            top_k=0,
            min_p=0.0,
        )

    @property
    def _one_of_many(self) -> bool:
        """Whether a voter may be returned: one answer is asked for, and no surer one than the voters are."""
        asked, how = self.plan.asked, self.service.config.sampling
        free = asked.top_p >= how.top_p and not asked.top_k and not asked.min_p
        return asked.n == 1 and free and asked.temperature >= how.temperature > 0

    async def _whole(self, request: Request) -> list[Rollout]:
        found: dict[int, Rollout] = {}
        async for progress in self._streamed(request, whole=True):
            assert progress.rollout is not None
            found[progress.index] = progress.rollout
        return [found[index] for index in range(request.n)]

    async def _streamed(self, request: Request, whole: bool) -> AsyncIterator[Progress]:
        loop = asyncio.get_running_loop()
        news: deque[Progress | EngineError] = deque()
        come = asyncio.Event()

        def listen(one: Progress | EngineError) -> None:
            if isinstance(one, EngineError) or one.rollout is not None or not whole:
                news.append(one)
                if len(news) == 1:  # whoever takes from a longer one has been woken
                    loop.call_soon_threadsafe(come.set)

        handle = self.service.engine.start(request, listen)
        left = request.n
        try:
            while left:
                while not news:
                    come.clear()
                    if not news:
                        await come.wait()
                one = news.popleft()
                if isinstance(one, EngineError):
                    left = 0
                    raise one
                if one.rollout is not None:
                    left -= 1
                    self.generated += len(one.rollout.token_ids)
                yield one
        finally:
            if left:
                self.service.engine.cancel(handle)


def listed(rollout: Rollout) -> list[tuple[int, float, Alternatives]]:
    """The tokens of a rollout, each with its log-probability and the most likely others."""
    tops = rollout.alternatives or ((),) * len(rollout.token_ids)
    return list(zip(rollout.token_ids, rollout.logprobs, tops, strict=True))
