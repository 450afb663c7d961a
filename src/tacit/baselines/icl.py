"""ICL over raw traces: the nearest earlier problem and its own solution, shown as a worked example.

Builds on agent and recall's keys. The baseline that the paper's soft prompts are compared with: same store of
experience, same retrieval, but the experience stays text. Every earlier problem with an answer has a trace, the first
sampled response that gave the majority answer; there is no gate and no floor, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tacit.agent import Agent, Answered
from tacit.responses import Responses


@dataclass(frozen=True)
class Shown:
    """An example that was shown: whose, how similar, and the responses it led to."""

    source: str
    similarity: float
    responses: Responses


@dataclass
class TraceStore:
    """Problems seen so far, their traces and keys."""

    agent: Agent
    ids: list[str] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)

    def add(self, problem_id: str, problem: str, trace: str | None, key: np.ndarray | None = None) -> None:
        """Keep the trace of a problem; None (no response gave an answer) keeps nothing."""
        if trace is None:
            return
        self.ids.append(problem_id)
        self.examples.append((problem, trace))
        self.keys.append(self.agent.recall.keys([problem])[0] if key is None else key)

    def answer(self, answered: Sequence[Answered]) -> list[Shown | None]:
        """Answer problems with the nearest trace in context, in one batch; None before there is any trace."""
        if not self.keys:
            return [None] * len(answered)
        similarity = np.stack([one.key for one in answered]) @ np.stack(self.keys).T
        nearest = similarity.argmax(axis=1)
        requests = []
        for one, best in zip(answered, nearest, strict=True):
            ids = self.agent.backbone.encode(one.problem.text, examples=[self.examples[best]])
            requests += self.agent.responder.requests(one.problem, ids, "icl")
        responses = self.agent.responder.generate(requests)
        return [
            Shown(self.ids[best], float(row[best]), response)
            for row, best, response in zip(similarity, nearest, responses, strict=True)
        ]


def trace(answered: Answered) -> str | None:
    """The first sampled response without memory that gave the majority answer."""
    zero_shot = answered.zero_shot
    pairs = zip(zero_shot.samples, zero_shot.vote.agrees, strict=True)
    return next((rollout.text for rollout, agrees in pairs if agrees), None)
