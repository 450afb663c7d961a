"""Labels: what a problem's own responses say its answer is. No gold answer is involved.

Builds on the task, routing, verifiers and the registry. The paper takes the majority of the zero-shot rollouts. Better
sources cost no rollout more: the routed answers, which get better as memories accumulate, and votes that are weighted,

    label = argmax_a sum_i [answer_i = a] w_i.

- *verified*: every response, with memory or without, counts as much as a process reward model believes it. The label is
  taken if one response that gives it is believed to TRUST. This also catches the consistent misconception that wins a
  plain vote. It takes the place of the vote gate: one believed response outweighs a weak vote.
- *confident*: without such a model every response without memory counts exp(SHARPNESS x its mean log-probability per
  token), which needs no labels (after self-certainty for best-of-n, arXiv 2502.18581). The label is taken, whatever the
  gate says, if it has a share of TRUST of the weight.

Where neither is sure, the plain vote and its gate decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tacit import registry
from tacit.engines.base import Rollout
from tacit.judges.verifiers import Candidate, Verifier, certainties
from tacit.registry import register
from tacit.responses import Responses
from tacit.routing import Route
from tacit.tasks.base import Task, Vote

TRUST = 0.5
"""Least probability of the best response that gives the label, or least share of the weight: likelier than not."""

SHARPNESS = 5.0
"""Of the weights of a confident vote, per nat of mean log-probability; 0 would be a plain vote. 1 to 10 gave right
labels equally often to within three points on the testbed."""


@dataclass(frozen=True)
class Label:
    """A label and where it came from.

    Attributes:
        vote: the plain vote behind it, for the gate and for the record.
        answer: the label; None if nobody gave an answer, or none is to be learned from.
        why: who decided and with what numbers.
        trusted: decided by a verifier, so that the vote gate does not apply.
        trace: a response that gives it; None if there is none.
        belief: mean probability, by a calibrated verifier, that a response which gives it is right; None without one.
    """

    vote: Vote
    answer: str | None
    why: str
    trusted: bool
    trace: Rollout | None
    belief: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What a label is made of.

    Attributes:
        problem: its text.
        zero_shot: sampled responses without memory.
        memory: sampled responses with the recalled memory; empty if there is none.
        routes: which of each pair was returned.
        verifier: weighs responses; None unless its scores are probabilities.
        task: says when two answers are the same.
    """

    problem: str
    zero_shot: Sequence[Candidate]
    memory: Sequence[Candidate]
    routes: Sequence[Route]
    verifier: Verifier | None
    task: Task

    @classmethod
    def of(
        cls,
        problem: str,
        zero_shot: Responses,
        memory: Responses | None,
        routes: Sequence[Route],
        verifier: Verifier | None,
    ) -> Evidence:
        """That of a problem with its responses, without and with the recalled memory."""
        with_memory = [] if memory is None else memory.candidates()[:-1]
        # The numbers of other verifiers compare two responses and say nothing by themselves.
        calibrated = verifier if verifier is not None and verifier.calibrated else None
        own = zero_shot.candidates()[:-1]
        return cls(problem, own, with_memory, routes, calibrated, zero_shot.task)

    def plain(self, candidates: Sequence[Candidate]) -> Label:
        """The label of a plain vote."""
        vote = self.vote(candidates)
        giving = [candidate for candidate, agrees in zip(candidates, vote.agrees, strict=True) if agrees]
        trace = giving[0].rollout if giving else None
        return Label(vote, vote.answer, vote.why, False, trace)

    def vote(self, candidates: Sequence[Candidate]) -> Vote:
        """The plain vote of responses."""
        return self.task.vote([candidate.answer for candidate in candidates])

    def heaviest(self, candidates: Sequence[Candidate], weights: Sequence[float]) -> list[int] | None:
        """The responses that give the answer with the largest weight; None if nobody answers."""
        found = self.task.ranked([candidate.answer for candidate in candidates], weights)
        return found[0][1] if found else None


def choose(how: str, evidence: Evidence) -> Label:
    """The label of one answered problem, made as the registered ``how`` says, else by the plain vote."""
    label: Label | None = registry.get("label", how)(evidence)
    return label or evidence.plain(evidence.zero_shot)


@register("label", "zero-shot")
def zero_shot(evidence: Evidence) -> Label:
    """The plain vote of the responses without memory."""
    return evidence.plain(evidence.zero_shot)


@register("label", "routed")
def routed(evidence: Evidence) -> Label:
    """The plain vote of the responses that were returned."""
    if not evidence.memory:
        return zero_shot(evidence)
    pairs = zip(evidence.routes, evidence.zero_shot, evidence.memory, strict=True)
    return evidence.plain([other if route.takes_memory else own for route, own, other in pairs])


@register("label", "all")
def every(evidence: Evidence) -> Label:
    """The plain vote of all responses, but for answers that are given with the memory alone: a wrong memory gives its
    own with one voice, and another one would be learned from it."""
    both = [*evidence.zero_shot, *evidence.memory]
    groups = evidence.task.group([candidate.answer for candidate in both])
    alone = {i for one in groups if min(one) >= len(evidence.zero_shot) for i in one}
    return evidence.plain([candidate for i, candidate in enumerate(both) if i not in alone])


@register("label", "verified")
def verified(evidence: Evidence) -> Label | None:
    """The answer that a verifier believes most, or None if it believes no response; without one the confident label."""
    verifier, candidates = evidence.verifier, [*evidence.zero_shot, *evidence.memory]
    if verifier is None:
        return confident(evidence)
    scores = verifier.score(evidence.problem, candidates)
    best = evidence.heaviest(candidates, scores)
    if best is None:
        return None
    first = max(best, key=lambda i: (scores[i], -i))
    if scores[first] < TRUST:
        return None
    weight, total, answer = sum(scores[i] for i in best), sum(scores), candidates[first].answer
    why = f"{verifier.name}: weight {weight:.1f} of {total:.1f} for {answer!r}, best response {scores[first]:.2f}"
    return Label(evidence.vote(candidates), answer, why, True, candidates[first].rollout, weight / len(best))


@register("label", "confident")
def confident(evidence: Evidence) -> Label | None:
    """The label of the vote weighted by likelihood, or None if it has less than ``TRUST`` of the weight."""
    candidates = evidence.zero_shot
    weights = certainties(candidates, SHARPNESS)
    best = evidence.heaviest(candidates, weights)
    share = sum(weights[i] for i in best) / sum(weights) if best else 0.0
    if best is None or share < TRUST:
        return None
    first = max(best, key=lambda i: (weights[i], -i))
    answer = candidates[first].answer
    why = f"confidence: {share:.2f} of the weight for {answer!r}, {len(best)} of {len(candidates)} responses"
    return Label(evidence.vote(candidates), answer, why, True, candidates[first].rollout)
