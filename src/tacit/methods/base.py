"""What a method is: something that answers problems as they come and may learn from them. Add one in one file.

Builds on responses and what stands below; the comparison (``tacit compare``) builds on this. Every method gets the
same ``World``: one frozen model, engine, template, sampler and seed. It answers a window of blind problems, then may
learn from that window; who is right is decided elsewhere and after. Tokens, seconds and memory are metered by the
comparison, not reported by the method.

    @register("method", "always-42")
    class AlwaysFortyTwo(Method):
        def answer(self, problems):
            return [Reply(("42",), "42") for _ in problems]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.engines.base import Engine, Request, Rollout
from tacit.errors import ConfigError
from tacit.judges.verifiers import Verifier
from tacit.methods.planning import Plan, Setting, answering
from tacit.model.backbone import Backbone
from tacit.model.presets import fitted
from tacit.problem import Problem
from tacit.responses import Responder, Responses
from tacit.tasks.base import Task
from tacit.tasks.maths import MATHS


class Oracle(Protocol):
    """Marks answers with the truth. Given only to methods that say ``uses_labels``: upper bounds and sanity runs."""

    def right(self, problem_id: str, answers: Sequence[str | None]) -> list[bool]:
        """Whether each answer to the problem is right."""
        ...

    def truth(self, problem_id: str) -> str:
        """The right answer."""
        ...


@dataclass(frozen=True)
class World:
    """What a method works with; the same for all methods of a comparison.

    Attributes:
        backbone, engine: the frozen model and its generator.
        seed: of all randomness (with the problem's id).
        folder: scratch folder of this cell alone, for a bank or whatever a method keeps.
        stream: all problems of the cell, blind, in order. For offline methods; an online method must not look ahead.
        training: blind problems of the same kind that are not in the stream, for methods that train on a labelled set;
            may be empty.
        oracle: marks answers to ``stream`` and ``training``; None unless the method says ``uses_labels``.
        verifier: as for routing.
        options: further settings of this one method, by name.
        task: how problems are read.
    """

    backbone: Backbone
    engine: Engine
    seed: int
    folder: Path
    stream: tuple[Problem, ...] = ()
    training: tuple[Problem, ...] = ()
    oracle: Oracle | None = None
    verifier: Verifier | None = None
    sampling: Sampling = field(default_factory=Sampling)
    learning: LearnConfig = field(default_factory=LearnConfig)
    recalling: RecallConfig = field(default_factory=RecallConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task = MATHS

    def __post_init__(self) -> None:
        for name in ("sampling", "learning", "recalling"):
            object.__setattr__(self, name, fitted(getattr(self, name), self.backbone))

    @cached_property
    def responder(self) -> Responder:
        """Asks the frozen model."""
        return Responder(self.engine, self.sampling, self.seed, self.task)

    def requests(self, problems: Sequence[Problem], soft_prompt: np.ndarray | None = None) -> list[Request]:
        """The sampled and the greedy request of every problem, as it stands or behind one soft prompt."""
        ask, encode = self.responder.requests, self.backbone.encode
        pairs = [ask(problem, encode(problem.text), "zero-shot", soft_prompt) for problem in problems]
        return [request for pair in pairs for request in pair]

    def rollouts(
        self, problems: Sequence[Problem], counts: Sequence[int], drawn: Sequence[Sequence[Rollout]] = ()
    ) -> list[list[Rollout]]:
        """As many zero-shot rollouts of each problem as ``counts`` says, beginning with those ``drawn`` already."""
        held = [list(rollouts) for rollouts in drawn] or [[] for _ in problems]
        places, requests = [], []
        for place, (problem, count) in enumerate(zip(problems, counts, strict=True)):
            if more := range(len(held[place]), count):
                places.append(place)
                requests.append(self.responder.sampled(problem, self.backbone.encode(problem.text), "zero-shot", more))
        for place, rollouts in zip(places, self.engine.generate(requests), strict=True):
            held[place] += rollouts
        return held


@dataclass(frozen=True)
class Reply:
    """What a method says to one problem.

    Attributes:
        answers: as many as were sampled (one for a method that gives one answer); None where there is no answer.
        greedy_answer: what it says at temperature 0.
        notes: JSON-ready particulars for the row (source, similarity, route ...).
        arms: what else it had to choose from, by name (as "memory"): sampled answers and greedy answer, marked for
            the record.
        state: anything the method wants to see again in ``learn``; not stored.
    """

    answers: tuple[str | None, ...]
    greedy_answer: str | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, tuple[Sequence[str | None], str | None]] = field(default_factory=dict)
    state: Any = None

    @classmethod
    def of(cls, responses: Responses, state: Any = None, **notes: Any) -> Reply:
        """The reply that gives ``responses`` as they are."""
        return cls(responses.answers, responses.greedy_answer, notes, state=state)


@dataclass(frozen=True)
class Lesson:
    """What a method took from one problem, for the record.

    Attributes:
        label: the answer that it learned to give; None if it learned none.
        kept: whether what it learned will be used.
        why: in one sentence.
        notes: JSON-ready particulars (margin of the vote, rewards ...).
    """

    label: str | None
    kept: bool
    why: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


class Method(ABC):
    """A way of answering a stream of problems.

    Attributes:
        uses_labels: whether it is given an oracle; such methods are marked in tables.
        probed: whether it is asked again at the end of the stream; pointless for one that keeps nothing.
        defaults: its options and their default values; other names are refused.
        trainable: parameters that it trains, at most, at once (of one memory; of a whole model).
        gradient_steps: taken so far.
    """

    name: str = ""
    uses_labels: ClassVar[bool] = False
    probed: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {}
    trainable: int = 0
    gradient_steps: int = 0

    def __init__(self, world: World) -> None:
        unknown = sorted(set(world.options) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise ConfigError(f"method {self.name} has no option {', '.join(unknown)}; it has: {known}")
        self.world = world
        self.options: dict[str, Any] = {**self.defaults, **world.options}

    def count(self, name: str) -> int:
        """An option that is a whole number of at least 1."""
        value = self.options.get(name)
        if type(value) is not int or value < 1:
            raise ConfigError(f"method {self.name}: {name} is {value!r}; it must be a whole number of at least 1")
        return value

    def choice(self, name: str, *allowed: str) -> str:
        """An option that is one of some words."""
        value = self.options.get(name)
        if value not in allowed:
            raise ConfigError(f"method {self.name}: {name} is {value!r}; use one of {', '.join(allowed)}")
        return str(value)

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        """What it spends at most, said before a model is loaded (``tacit compare --dry-run``); by default that of
        answering once: sampled and greedy, learning nothing."""
        return Plan((answering(setting),))

    def prepare(self) -> None:  # noqa: B027 - doing nothing is the usual case
        """Whatever comes before the first problem: offline methods train here."""

    def strangers(self, problems: Sequence[Problem]) -> int:
        """How many of a window's blind problems, from the first, are answered before it learns: where it learns of each
        one for others, those of which none needs another's lesson."""
        return len(problems)

    @abstractmethod
    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        """Answer blind problems, in order. Changes nothing: it is also asked after the stream, for replay."""

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> Sequence[Lesson] | None:
        """Learn from the window last answered; a lesson per problem if there is something to tell."""
        return None

    def close(self) -> None:  # noqa: B027
        """Let go of files."""
