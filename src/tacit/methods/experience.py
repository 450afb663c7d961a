"""What the baselines without training share: experience kept as it is, found by key, put before the model as it is.

Builds on the method protocol, recall's keys and responses. Such a method answers every problem zero-shot. Once
something is kept, it answers again with what was kept of the nearest earlier problems; that second answer is the one it
gives, as in the paper: no gate, no floor, no routing. Then it keeps something of the window. Subclasses say what is
kept and how it is shown.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from tacit.engines.base import Request, Rollout
from tacit.methods.base import Lesson, Method, Reply, World
from tacit.methods.planning import Plan, Setting, Work, answering
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.recall import Keys, strangers
from tacit.responses import Responses

T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """Something kept of an earlier problem.

    Attributes:
        source: that problem's id.
        similarity: cosine of its key and the asked problem's.
        item: what was kept.
    """

    source: str
    similarity: float
    item: T


@dataclass
class Store(Generic[T]):
    """Things kept, each with the key of the problem it comes from."""

    sources: list[str] = field(default_factory=list)
    items: list[T] = field(default_factory=list)
    _room: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def keys(self) -> np.ndarray:
        """The keys of all things, float32 [N, D], in the order of keeping."""
        return self._room[: len(self.items)]

    def add(self, source: str, key: np.ndarray, item: T) -> None:
        """Keep something of the problem ``source``, whose key is ``key`` [D] of unit norm."""
        count = len(self.items)
        if count == len(self._room):
            # Room doubles, so that a long stream does not copy all keys with every problem.
            grown = np.empty((max(64, 2 * count), len(key)), dtype=np.float32)
            if count:
                grown[:count] = self.keys
            self._room = grown
        self._room[count] = key
        self.sources.append(source)
        self.items.append(item)

    def nearest(self, keys: np.ndarray, k: int = 1) -> list[list[Found[T]]]:
        """For each key [N, D] the ``k`` most similar things, nearest first; of equal ones the first that was kept."""
        if not self.items:
            return [[] for _ in keys]
        # Equal keys differ in a product's last bit, by their places in it: rounded, equal is equal in any batch.
        similarity = np.round(keys @ self.keys.T, 6)
        return [
            [Found(self.sources[place], float(row[place]), self.items[place]) for place in _largest(row, k)]
            for row in similarity
        ]


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Places of the ``k`` largest of ``values`` [N], falling; of equal ones the first."""
    k = min(k, len(values))
    # Only what is not below the k-th largest gets sorted.
    places = np.flatnonzero(values >= np.partition(values, -k)[-k])
    return places[np.argsort(-values[places], kind="stable")[:k]]


class Answered(NamedTuple):
    """What ``learn`` needs of a problem that was answered: its key and the zero-shot responses."""

    key: np.ndarray
    zero_shot: Responses


class FromExperience(Method, Generic[T]):
    """Answers with what was kept of the nearest earlier problems."""

    defaults: ClassVar[Mapping[str, Any]] = {"k": 1}

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.store: Store[T] = Store()
        self.k = self.count("k") if "k" in self.options else 1

    @cached_property
    def keys(self) -> Keys:
        """Makes the keys of problems."""
        return Keys(self.world.backbone, self.world.recalling.key)

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        return Plan((answering(setting, arms=2, shown=setting.options.get("k", 0) / 2),))

    def strangers(self, problems: Sequence[Problem]) -> int:
        keys = self.keys.of([problem.text for problem in problems])
        found = self.store.nearest(keys, self.k)
        return strangers(keys, [near[-1].similarity if len(near) == self.k else -1.0 for near in found])

    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        """All in one batch: zero-shot, and with experience where there is any (that fits the context)."""
        keys = self.keys.of([problem.text for problem in problems])
        zero_shot, helped = self.ask(problems, keys, self.world.requests(problems))
        replies = []
        for problem, key, plain, (found, notes) in zip(problems, keys, zero_shot, helped, strict=True):
            answers, greedy = self.given(problem, plain, found or plain)
            arms = {"zero_shot": (plain.answers, plain.greedy_answer)}
            replies.append(Reply(answers, greedy, notes, arms, Answered(key, plain)))
        return replies

    def given(self, problem: Problem, plain: Responses, helped: Responses) -> tuple[tuple[str | None, ...], str | None]:
        """The answers that are given, sampled and greedy, of those without and with experience: the latter."""
        return helped.answers, helped.greedy_answer

    def ask(
        self, problems: Sequence[Problem], keys: np.ndarray, first: Sequence[Request] = ()
    ) -> tuple[list[Responses], list[tuple[Responses | None, dict[str, Any]]]]:
        """The responses to the requests ``first``; and per problem (its key is among ``keys`` [N, D]) those with what
        was kept (None where there is nothing) and its row's notes. All in one batch."""
        shown = [
            self._shown(problem, found)
            for problem, found in zip(problems, self.store.nearest(keys, self.k), strict=True)
        ]
        asked = [*first, *(one for _, requests in shown for one in requests)]
        helped = (problem for problem, (_, requests) in zip(problems, shown, strict=True) if requests)
        responses = iter(self.world.responder.generate(asked, chain(problems if first else (), helped)))
        plain = list(islice(responses, len(first) // 2))
        return plain, [
            (self.heard(problem, near, next(responses)) if near else None, self.notes(near))
            for problem, (near, _) in zip(problems, shown, strict=True)
        ]

    def heard(self, problem: Problem, near: Sequence[Found[T]], responses: Responses) -> Responses:
        """What was said with what was found, as it is read."""
        return responses

    def _shown(self, problem: Problem, found: Sequence[Found[T]]) -> tuple[Sequence[Found[T]], list[Request]]:
        """What is shown of what was found, and the requests: the farthest is left out until the rest fits."""
        while found:
            requests = self.requests(problem, found)
            if requests:
                return found, requests
            found = found[:-1]
        return [], []

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Lesson]:
        answered: list[Answered] = [reply.state for reply in replies]
        kept = self.keep(problems, [one.zero_shot for one in answered])
        lessons = []
        for problem, one, (item, why) in zip(problems, answered, kept, strict=True):
            if item is not None:
                self.store.add(problem.id, one.key, item)
            vote = one.zero_shot.vote
            notes = {"share": vote.share, "margin": vote.margin}
            lessons.append(Lesson(vote.answer, item is not None, why or vote.why, notes))
        return lessons

    def notes(self, near: Sequence[Found[T]]) -> dict[str, Any]:
        """For the row: the nearest source and its similarity, and all sources if there are several."""
        if not near:
            return {}
        notes: dict[str, Any] = {"source": near[0].source, "similarity": near[0].similarity}
        return notes if len(near) == 1 else {**notes, "sources": [one.source for one in near]}

    def room(self, length: int) -> bool:
        """Whether a prompt of so many tokens leaves room for an answer."""
        return self.world.responder.room(length) >= 0

    @abstractmethod
    def requests(self, problem: Problem, near: Sequence[Found[T]]) -> list[Request]:
        """The sampled and the greedy request with what was found (one thing at least), nearest first; none if they do
        not fit the model's context."""

    @abstractmethod
    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[T | None, str]]:
        """What to keep of each problem, given its zero-shot responses (None for nothing), and why in a sentence ("":
        the vote says it)."""


class Reviewing(FromExperience[T]):
    """Experience that the model makes of its own attempts, looked at again after each window."""

    asking: ClassVar[str]
    """What the model has to be able to read."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.attempts = self.count("attempts")
        self.reads = can_read(world.backbone, self.asking)

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        reviews = Work("learn", setting.problems, len(setting.windows), shown=float(setting.options["attempts"]))
        return Plan((*super().plan(setting).work, reviews))

    def reviews(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[int, Rollout]]:
        """What the model writes, by the problem's place; nothing of one without a majority or without room."""
        asked = {
            place: request
            for place, (problem, one) in enumerate(zip(problems, responses, strict=True))
            if (request := self._review(problem, one)) is not None
        }
        return [
            (place, rollout)
            for place, [rollout] in zip(asked, self.world.engine.generate(list(asked.values())), strict=True)
        ]

    def _review(self, problem: Problem, responses: Responses) -> Request | None:
        """With as many attempts as are wanted and fit; None if there is no majority or not even one fits."""
        agreeing, others = attempts(responses)
        for count in range(self.attempts if agreeing else 0, 0, -1):
            ids = self.review(problem, responses, agreeing, others[: count // 2], count)
            if self.room(len(ids)):
                return Request(ids, None, 1, 0.0, 1.0, self.world.sampling.max_tokens, (), self.world.backbone.stop)
        return None

    @abstractmethod
    def review(
        self, problem: Problem, responses: Responses, agreeing: list[Rollout], others: list[Rollout], count: int
    ) -> Tensor:
        """The prompt with ``count`` attempts: ``others``, and as many as are missing of those that agree."""


def attempts(responses: Responses) -> tuple[list[Rollout], list[Rollout]]:
    """The sampled responses that gave the majority answer, and those that did not."""
    marked = list(zip(responses.samples, responses.vote.agrees, strict=True))
    return [one for one, agrees in marked if agrees], [one for one, agrees in marked if not agrees]


def listed(rollouts: Sequence[Rollout]) -> str:
    """Attempts under each other, numbered, to be looked at again."""
    return "\n\n".join(f"Attempt {number}: {one.text.strip()}" for number, one in enumerate(rollouts, 1))


def can_read(backbone: Backbone, text: str) -> bool:
    """Whether the model's tokenizer can express a text: encoded and decoded again, no word of it is lost."""
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return _words(text) == _words(backbone.decode(ids))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
