"""The online loop: answer a problem with what is remembered, then learn from it. Read this file first.

Builds on everything below it: backbone, engine, recall, routing, learning and the bank. The way of the data:

    Problem -> key -> recall -> generate (zero-shot + with memory) -> vote -> route -> Answer
                                                                       |
                                            learn (GRPO on a soft prompt, many at once)
                                                                       |
                                                 Memory -> gate -> Bank ----> recall of later problems

Problems come in windows: all of a window are answered, then learned together, then remembered. A window ends before a
problem that would recall another one's memory (``strangers``): so any answers what the paper's windows of one do.
Nothing here sees a gold answer: problems are blinded on the way in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tacit import labels
from tacit.bank.base import Bank, Hit
from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.engines.base import Engine, Rollout
from tacit.errors import MemoryNotFound
from tacit.judges.verifiers import Verifier, paired
from tacit.labels import Evidence, Label
from tacit.learning import Learned, Target, learner_of
from tacit.memory import Memory, State, memory_id
from tacit.model.backbone import Backbone
from tacit.model.presets import fitted
from tacit.problem import Problem
from tacit.recall import Recall
from tacit.responses import Responder, Responses
from tacit.routing import NO_MEMORY, Route, by_votes, route
from tacit.tasks.base import Task
from tacit.tasks.maths import MATHS


@dataclass(frozen=True)
class Answered:
    """One problem, answered.

    Attributes:
        problem: blind.
        key: float32 [D] unit norm.
        zero_shot: without memory.
        hit: the recalled memory; None if none is similar enough, or there is no room for it.
        memory: responses with it.
        routes: one per sample.
        greedy_route: of the greedy pair.
    """

    problem: Problem
    key: np.ndarray
    zero_shot: Responses
    hit: Hit | None = None
    memory: Responses | None = None
    routes: tuple[Route, ...] = ()
    greedy_route: Route = NO_MEMORY

    @property
    def answers(self) -> tuple[str | None, ...]:
        """The routed answers, one per sample."""
        if self.memory is None:
            return self.zero_shot.answers
        pairs = zip(self.routes, self.zero_shot.answers, self.memory.answers, strict=True)
        return tuple(memory if decided.takes_memory else zero for decided, zero, memory in pairs)

    @property
    def _greedy(self) -> Responses:
        return self.memory if self.memory is not None and self.greedy_route.takes_memory else self.zero_shot

    @property
    def greedy_answer(self) -> str | None:
        """The routed greedy answer: what a user who asks once is told, unless samples vote (``told``)."""
        return self._greedy.greedy_answer

    @property
    def greedy(self) -> Rollout:
        """The routed greedy rollout."""
        return self._greedy.greedy

    def told(self) -> tuple[Route, Rollout]:
        """What a user who asks once is told where samples vote: see ``by_votes``."""
        if self.memory is None:
            return self.greedy_route, self.greedy
        sides = (self.zero_shot, self.memory)
        greedy = [[(side.greedy, side.greedy_answer)] for side in sides]
        samples = [list(zip(side.samples, side.answers, strict=True)) for side in sides]
        return by_votes([*greedy, *samples], self.greedy_route, self.zero_shot.task)

    @property
    def tokens(self) -> int:
        """Tokens generated to answer."""
        return self.zero_shot.tokens + (self.memory.tokens if self.memory else 0)


@dataclass(frozen=True)
class Remembered:
    """What became of learning one problem: the memory to store (None if there is none) and why."""

    learned: Learned
    memory: Memory | None
    known: bool = False


@dataclass
class Agent:
    """A frozen model with a bank of memories it writes itself.

    Attributes:
        backbone, engine, bank: model, generator and store; all three outlive the agent.
        namespace: whose memories are used and made.
        seed: of all sampling and learning.
        verifier: decides between differing answers; None takes the memory's.
        sampling, learning, recalling: see there; what is unsaid becomes what fits the model (model/presets.py).
        task: how problems are read: where an answer is found, and when two are the same.
    """

    backbone: Backbone
    engine: Engine
    bank: Bank
    namespace: str = "default"
    seed: int = 0
    verifier: Verifier | None = None
    sampling: Sampling = field(default_factory=Sampling)
    learning: LearnConfig = field(default_factory=LearnConfig)
    recalling: RecallConfig = field(default_factory=RecallConfig)
    task: Task = MATHS

    def __post_init__(self) -> None:
        self.bank.bind(self.namespace, self.backbone.fingerprint, self.backbone.name)
        self.sampling = fitted(self.sampling, self.backbone)
        self.learning = fitted(self.learning, self.backbone)
        self.recalling = fitted(self.recalling, self.backbone)
        self.recall = Recall(self.backbone, self.bank, self.recalling, self.namespace)
        self.responder = Responder(self.engine, self.sampling, self.seed, self.task)
        self.learner = learner_of(self.engine, self.learning, self.sampling, seed=self.seed, task=self.task)

    def too_long(self, problem: Problem) -> str | None:
        """Why a problem cannot be asked, in one sentence; None if it can."""
        length = len(self.backbone.encode(problem.text))
        if self.responder.room(length) >= 0:
            return None
        answer, context = self.sampling.max_tokens, self.engine.context
        return f"not asked: {length} tokens and an answer of up to {answer} do not fit the model's context of {context}"

    def strangers(self, problems: Sequence[Problem]) -> int:
        """How many of these problems (one at least), from the first, can be answered together as if one by one: none of
        them would recall a memory that another leaves."""
        return self.recall.strangers([problem.text for problem in problems])

    # -- answer -------------------------------------------------------------------------------------------------

    def answer(self, problems: Sequence[Problem], *, use_memory: bool = True) -> list[Answered]:
        """Answer problems with and without the nearest memory, all generated in one batch, and route."""
        problems = [problem.blind() for problem in problems]
        keys = self.recall.keys([problem.text for problem in problems])
        recalled = self.recall.recalled(keys) if use_memory else [None] * len(problems)
        ids = [self.backbone.encode(problem.text) for problem in problems]
        asked = [self.responder.requests(problem, own, "zero-shot") for problem, own in zip(problems, ids, strict=True)]
        hits: dict[int, Hit] = {}
        for number, found in enumerate(recalled):
            # A long problem may fit without a memory alone.
            columns, room = self.backbone.carrier.columns, self.responder.room(len(ids[number]))
            if found is not None and columns(found[1].prompt) <= room:
                hits[number] = found[0]
                asked.append(self.responder.requests(problems[number], ids[number], "memory", found[1].prompt))
        every = [*problems, *(problems[number] for number in hits)]
        responses = self.responder.generate([request for pair in asked for request in pair], every)
        zero_shot, memory = responses[: len(problems)], dict(zip(hits, responses[len(problems) :], strict=True))
        return [
            self.routed(problem, keys[n], zero_shot[n], hits.get(n), memory.get(n))
            for n, problem in enumerate(problems)
        ]

    def routed(
        self, problem: Problem, key: np.ndarray, zero_shot: Responses, hit: Hit | None, memory: Responses | None
    ) -> Answered:
        if memory is None:
            return Answered(problem, key, zero_shot, routes=(NO_MEMORY,) * len(zero_shot.samples))
        pairs = paired(zero_shot.candidates(), memory.candidates(), self.verifier, zero_shot.task)
        *routes, greedy_route = route(problem.text, pairs, self.verifier, zero_shot.task)
        return Answered(problem, key, zero_shot, hit, memory, tuple(routes), greedy_route)

    # -- learn --------------------------------------------------------------------------------------------------

    def learn(self, answered: Sequence[Answered], provenance: dict[str, Any] | None = None) -> list[Remembered]:
        """Learn a memory for each answered problem, all in one batch; stores nothing.

        A problem that this bank has already learned with the same seed and settings is not learned again. Weak votes
        are not learned from, and a prompt that never saw a reward is dropped.
        """
        known = [self._known(one.problem) for one in answered]
        fresh = [one for one, memory in zip(answered, known, strict=True) if memory is None]
        chosen = [self._label(one) for one in fresh]
        targets = [self._target(one, label) for one, label in zip(fresh, chosen, strict=True)]
        learned = iter(zip(chosen, self.learner.learn(targets), strict=True))
        remembered = []
        for one, memory in zip(answered, known, strict=True):
            if memory is not None:
                steps = list(memory.provenance.get("steps", []))
                active, label = memory.state is State.ACTIVE, memory.provenance.get("label")
                before = Learned(one.problem, memory.prompt, active, memory.reason, label, steps)
                remembered.append(Remembered(before, memory, known=True))
            else:
                label, result = next(learned)
                remembered.append(Remembered(result, self._memory(one, label, result, provenance or {})))
        return remembered

    def remember(self, answered: Sequence[Answered], remembered: Sequence[Remembered]) -> None:
        """Store memories and count what routing made of the recalled ones; one transaction."""
        with self.bank.transaction():
            for one in answered:
                if one.hit is not None:
                    self.recall.count(one.hit, one.greedy_route)
            for result in remembered:
                if result.memory is not None and not result.known:
                    self.bank.add(result.memory)

    def _id(self, problem: Problem) -> str:
        # The text belongs to the id: two files of a shared bank may both call their first problem "0".
        text = hashlib.sha256(problem.text.encode()).hexdigest()
        settings = f"{self.learning.digest()}:{self.recalling.key}:{self.sampling.payload()}:{text}"
        return memory_id(self.backbone.fingerprint, self.namespace, problem.id, self.seed, settings)

    def _known(self, problem: Problem) -> Memory | None:
        try:
            return self.bank.get(self._id(problem), self.namespace)
        except MemoryNotFound:
            return None

    def _label(self, one: Answered) -> Label:
        evidence = Evidence.of(one.problem.text, one.zero_shot, one.memory, one.routes, self.verifier)
        return labels.choose(self.learning.label, evidence)

    def _target(self, one: Answered, label: Label) -> Target:
        known = label.answer if label.trusted else None
        return Target(one.problem, label.vote, known, self._enough(one, label), self._shown(one, label))

    def _shown(self, one: Answered, label: Label) -> tuple[str, Rollout] | None:
        """The response behind a label, and the problem as that response saw it."""
        arms = [one.zero_shot.samples, one.memory.samples if one.memory else ()]
        numbers = (n for arm in arms for n, trace in enumerate(arm) if trace is label.trace)
        return next(((self.task.shown(one.problem.text, n), label.trace) for n in numbers if label.trace), None)

    def _enough(self, one: Answered, label: Label) -> str | None:
        """Why there is nothing to learn: no label is believed, or the recalled memory makes another one needless."""
        if label.answer is None and label.vote.answer is not None:
            return label.why
        if one.memory is None or label.answer is None or self.learning.enough > 1:
            return None
        answers = one.memory.answers
        right = sum(one.memory.task.giving(answers, label.answer))
        if right < self.learning.enough * len(answers):
            return None
        return f"the recalled memory is enough: {right} of {len(answers)} samples give {label.answer!r} with it"

    def _settings(self) -> dict[str, Any]:
        """What people ask of a memory's settings; ``config`` is the digest of all."""
        names = ("lr", "init", "reward", "label", "distil", "steps", "tokens", "rollouts")
        learning = {name: getattr(self.learning, name) for name in names}
        return {**learning, "key": self.recalling.key, "floor": self.recalling.floor}

    def _memory(self, one: Answered, label: Label, learned: Learned, provenance: dict[str, Any]) -> Memory | None:
        if learned.prompt is None or not any(step["reward"] > 0 for step in learned.steps):
            return None
        record = {
            "label": learned.label,
            "share": label.vote.share,
            "margin": label.vote.margin,
            "why": label.why,
            "trusted": label.trusted,
            **({} if label.belief is None else {"belief": label.belief}),
            "seed": self.seed,
            "model": self.backbone.name,
            "config": self.learning.digest(),
            "learning": self._settings(),
            **({} if (carrier := self.backbone.carrier.name) == "prompt" else {"carrier": carrier}),
            "tokens": learned.tokens,
            "steps": [{k: v for k, v in step.items() if k != "seconds"} for step in learned.steps],
            "trace": label.trace and label.trace.text,
            **provenance,
        }
        state, reason = (State.ACTIVE if learned.admitted else State.CANDIDATE), learned.reason
        return Memory(
            id=self._id(one.problem),
            namespace=self.namespace,
            problem_id=one.problem.id,
            problem=one.problem.text,
            prompt=learned.prompt,
            key=one.key,
            key_kind=self.recalling.key,
            fingerprint=self.backbone.fingerprint,
            state=state,
            reason=reason,
            provenance=record,
            created=time.time(),
        )
