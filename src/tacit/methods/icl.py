"""ICL over raw traces: the nearest earlier problems and their own solutions, shown as worked examples.

Builds on experience (and on agent, for the arm of a run). The baseline that the paper's soft prompts are compared
with: same store of experience, same retrieval, but the experience stays text. Every earlier problem with an answer has
a trace, the first sampled response that gave the majority answer; there is no gate and no floor, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tacit.agent import Agent, Answered
from tacit.engines.base import Request
from tacit.methods import experience
from tacit.methods.experience import Found, FromExperience, Store
from tacit.problem import Problem
from tacit.registry import register
from tacit.responses import Responses

Example = tuple[str, str]
"""A problem and a solution of it."""


@register("method", "icl")
class ICL(FromExperience[Example]):
    """The traces of the ``k`` nearest problems as worked examples, the nearest last."""

    def requests(self, problem: Problem, near: Sequence[Found[Example]]) -> list[Request]:
        ids = self.world.backbone.encode(problem.text, examples=[one.item for one in reversed(near)])
        return self.world.responder.requests(problem, ids, self.name) if self.room(len(ids)) else []

    def keep(self, problems: Sequence[Problem], responses: Sequence[Responses]) -> list[tuple[Example | None, str]]:
        traces = [experience.trace(one) for one in responses]
        return [
            (None if one is None else (problem.text, one.text), "")
            for problem, one in zip(problems, traces, strict=True)
        ]


@dataclass(frozen=True)
class Shown:
    """An example that was shown: whose, how similar, and the responses it led to."""

    source: str
    similarity: float
    responses: Responses


@dataclass
class TraceStore:
    """The same beside an agent, as an arm of a run: problems seen so far, their traces and keys."""

    agent: Agent
    store: Store[Example] = field(default_factory=Store)

    def add(self, problem_id: str, problem: str, trace: str | None, key: np.ndarray | None = None) -> None:
        """Keep the trace of a problem; None (no response gave an answer) keeps nothing."""
        if trace is not None:
            key = self.agent.recall.keys([problem])[0] if key is None else key
            self.store.add(problem_id, key, (problem, trace))

    def answer(self, answered: Sequence[Answered]) -> list[Shown | None]:
        """Answer problems with the nearest trace in context, in one batch; None before there is any trace, and where
        both together leave no room for an answer."""
        if not self.store:
            return [None] * len(answered)
        nearest = [near[0] for near in self.store.nearest(np.stack([one.key for one in answered]))]
        asked = {}
        for place, (one, near) in enumerate(zip(answered, nearest, strict=True)):
            ids = self.agent.backbone.encode(one.problem.text, examples=[near.item])
            if self.agent.responder.room(len(ids)) >= 0:
                asked[place] = self.agent.responder.requests(one.problem, ids, "icl")
        given = self.agent.responder.generate([request for pair in asked.values() for request in pair])
        responses = dict(zip(asked, given, strict=True))
        return [
            Shown(near.source, near.similarity, responses[place]) if place in responses else None
            for place, near in enumerate(nearest)
        ]


def trace(answered: Answered) -> str | None:
    """The first sampled response without memory that gave the majority answer."""
    rollout = experience.trace(answered.zero_shot)
    return None if rollout is None else rollout.text
