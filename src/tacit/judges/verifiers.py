"""Verifiers: which of two responses to trust when the answer with memory and the one without differ.

Builds on the engine's rollouts and the registry. None of them reads a gold answer. A process reward model is what the
paper uses (method.md, "Response routing"; reward_models.py); vote share and log-probability need no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tacit.engines.base import Rollout
from tacit.registry import register
from tacit.tasks.base import Task


@dataclass(frozen=True)
class Candidate:
    """A response that may be returned.

    Attributes:
        rollout: the response.
        answer: extracted from it.
        share: share of its own group of samples that gives an equivalent answer.
    """

    rollout: Rollout
    answer: str | None
    share: float


def candidates(
    rollouts: Sequence[Rollout], answers: Sequence[str | None], voters: Sequence[str | None], task: Task
) -> list[Candidate]:
    """Rollouts with their answers for a verifier. Each has the share of the voters' answers that are equivalent,
    however they are written."""
    everyone = [*answers, *voters]
    shares = [0.0] * len(everyone)
    for members in task.group(everyone):
        share = sum(member >= len(answers) for member in members) / max(1, len(voters))
        for member in members:
            shares[member] = share
    return [Candidate(*parts) for parts in zip(rollouts, answers, shares[: len(answers)], strict=True)]


class Verifier(Protocol):
    """Scores responses to one problem.

    Attributes:
        name: for reasons and reports.
        calibrated: whether scores are probabilities of being right; otherwise only comparisons between them count.
    """

    name: str
    calibrated: bool

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """One number per candidate, higher is better."""
        ...


class VoteShare:
    """Trusts the answer that is more common in its own group."""

    name = "vote share"
    calibrated = False

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """The candidates' shares."""
        return [candidate.share for candidate in candidates]


class LogProb:
    """Trusts the response that its own policy found likelier: mean log-probability per token."""

    name = "mean log-prob"
    calibrated = False

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        """Mean natural-log probability of the tokens."""
        return [sum(c.rollout.logprobs) / max(1, len(c.rollout.logprobs)) for c in candidates]


register("verifier", "vote")(lambda settings: VoteShare())
register("verifier", "logprob")(lambda settings: LogProb())
register("verifier", "none")(lambda settings: None)  # the memory's answer is taken whenever it gives one
