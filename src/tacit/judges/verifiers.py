"""Verifiers: which of two responses to trust when the answer with memory and the one without differ.

Builds on the engine's rollouts and the registry. None of them reads a gold answer. A process reward model is what the
paper uses (method.md, "Response routing"; reward_models.py); vote share and log-probability need no second model.

A memory speaks with one voice, right or wrong, so a vote share nearly always believes it. ``paired`` holds it back
where the model itself is divided between two answers: there one of a misconception overrules what a vote got right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tacit.engines.base import Rollout
from tacit.registry import register
from tacit.tasks.base import Task

SURE = 30.0
"""Of the weights by which a model is seen to be divided, per nat of mean log-probability."""

RIVAL = 0.45
"""Weight of the second answer, of the first one's, from which a model is divided. With a sharpness of 15 to 30 values
of .4 to .65 corrupted nearly equally few problems (docs/log/2026-12-01-where-the-model-is-divided.md)."""


@dataclass(frozen=True)
class Candidate:
    """A response that may be returned.

    Attributes:
        rollout: the response.
        answer: extracted from it.
        share: share of its own group of samples that gives an equivalent answer.
        doubt: why it may not overrule the other side, whatever its share; "" where it may.
    """

    rollout: Rollout
    answer: str | None
    share: float
    doubt: str = ""


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


def certainties(arm: Sequence[Candidate], sharpness: float) -> list[float]:
    """A weight per response, exp(``sharpness`` x its mean log-probability per token); 1 for the likeliest."""
    means = LogProb().score("", arm)
    return [math.exp(sharpness * (mean - max(means))) for mean in means]


def restrained(helped: Sequence[Candidate], plain: Sequence[Candidate], task: Task) -> list[Candidate]:
    """Responses with a memory. Where the model is divided without it, those are in doubt that do not give its vote.

    Args:
        helped: responses with the memory.
        plain: samples without it. Divided they are where each of the two heaviest answers is given twice or more, and
            the second weighs nearly as much: scattered answers are none to be kept.
        task: on the problem.
    """
    answers = [one.answer for one in plain]
    found = task.ranked(answers, certainties(plain, SURE))[:2] if plain else []
    if len(found) < 2 or min(len(places) for _, places in found) < 2 or found[1][0] < RIVAL * found[0][0]:
        return list(helped)
    one, other = (answers[places[0]] for _, places in found)
    doubt, vote = f"without memory the model is divided between {one!r} and {other!r}", task.vote(answers)
    told = [one.answer for one in helped]
    voted = task.giving(told, vote.answer) if vote.answer is not None and not vote.tied else [False] * len(told)
    return [one if agrees else replace(one, doubt=doubt) for one, agrees in zip(helped, voted, strict=True)]


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


def paired(
    plain: Sequence[Candidate], helped: Sequence[Candidate], verifier: Verifier | None, task: Task
) -> list[tuple[Candidate, Candidate]]:
    """Responses without memory and with it, pair by pair, the greedy ones last; where votes decide, restrained."""
    held_back = restrained(helped, plain[:-1], task) if isinstance(verifier, VoteShare) else helped
    return list(zip(plain, held_back, strict=True))


register("verifier", "vote")(lambda settings: VoteShare())
register("verifier", "logprob")(lambda settings: LogProb())
register("verifier", "none")(lambda settings: None)  # the memory's answer is taken whenever it gives one
