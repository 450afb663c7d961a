"""Labels: what a problem's own responses say its answer is. No gold answer is involved.

Builds on answers, responses, routing and verifiers. The paper takes the majority of the zero-shot rollouts. Better
sources cost no rollout more: the routed answers, which get better as memories accumulate, and votes that are weighted,

    label = argmax_a sum_i [answer_i = a] w_i.

- *verified*: every response, with memory or without, counts as much as a process reward model believes it, and the
  label is taken if one response that gives it is believed to TRUST. This also catches the consistent misconception
  that wins a plain vote. It takes the place of the vote gate: one believed response outweighs a weak vote.
- *confident*: every response without memory counts exp(SHARPNESS x its mean log-probability per token), which needs no
  verifier and no labels (after self-certainty for best-of-n, arXiv 2502.18581). The label is taken, whatever the gate
  says, if it has a share of TRUST of the weight.

Where neither is sure, the plain vote and its gate decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tacit.answers.vote import Vote, group, vote_answers
from tacit.judges.verifiers import Candidate, Verifier
from tacit.responses import Responses
from tacit.routing import Route

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
        answer: the label; None if nobody gave an answer.
        why: who decided and with what numbers.
        trusted: decided by a verifier, so that the vote gate does not apply.
        trace: the text of a response that gives it; None if there is none.
        belief: mean probability, by a calibrated verifier, that a response which gives it is right; None without one.
    """

    vote: Vote
    answer: str | None
    why: str
    trusted: bool
    trace: str | None
    belief: float | None = None


def choose(
    how: str,
    problem: str,
    zero_shot: Responses,
    memory: Responses | None,
    routes: Sequence[Route],
    verifier: Verifier | None,
    *,
    believe: bool = False,
) -> Label:
    """The label of one answered problem.

    Args:
        how: ``LearnConfig.label``.
        problem: its text.
        zero_shot, memory: responses without and with the recalled memory.
        routes: which of each pair of samples was returned.
        verifier: weighs responses for "verified" if its scores are probabilities.
        believe: have it score a plain vote's label too.
    """
    candidates = zero_shot.candidates()[:-1]
    with_memory = [] if memory is None else memory.candidates()[:-1]
    if verifier is not None and not verifier.calibrated:
        verifier = None  # its numbers compare two responses and say nothing by themselves
    if how == "verified" and verifier is not None:
        weighed = _weighed(problem, [*candidates, *with_memory], verifier)
        if weighed is not None:
            return weighed
    if how == "confident":
        sure = _confident(candidates)
        if sure is not None:
            return sure
    if how == "routed" and with_memory:
        pairs = zip(routes, candidates, with_memory, strict=True)
        candidates = [other if route.takes_memory else own for route, own, other in pairs]
    vote = vote_answers([candidate.answer for candidate in candidates])
    giving = [candidate for candidate, agrees in zip(candidates, vote.agrees, strict=True) if agrees]
    trace = giving[0].rollout.text if giving else None
    belief = None
    if believe and verifier is not None and giving:
        belief = sum(verifier.score(problem, giving)) / len(giving)
    return Label(vote, vote.answer, vote.why, False, trace, belief)


def _heaviest(candidates: Sequence[Candidate], weights: Sequence[float]) -> list[int] | None:
    """The responses that give the answer with the largest weight; None if nobody answers."""
    answers = [candidate.answer for candidate in candidates]
    groups = [members for members in group(answers) if answers[members[0]] is not None]
    # Equal weights go to the larger, then the earlier group.
    return max(groups, key=lambda members: (sum(weights[i] for i in members), len(members), -members[0]), default=None)


def _weighed(problem: str, candidates: Sequence[Candidate], verifier: Verifier) -> Label | None:
    """The verifier's label, or None if it believes no response."""
    scores = verifier.score(problem, candidates)
    best = _heaviest(candidates, scores)
    if best is None:
        return None
    first = max(best, key=lambda i: (scores[i], -i))
    if scores[first] < TRUST:
        return None
    weight, total, answer = sum(scores[i] for i in best), sum(scores), candidates[first].answer
    why = f"{verifier.name}: weight {weight:.1f} of {total:.1f} for {answer!r}, best response {scores[first]:.2f}"
    vote = vote_answers([candidate.answer for candidate in candidates])
    return Label(vote, answer, why, True, candidates[first].rollout.text, weight / len(best))


def _confident(candidates: Sequence[Candidate]) -> Label | None:
    """The label of the vote weighted by likelihood, or None if it has less than ``TRUST`` of the weight."""
    means = [sum(c.rollout.logprobs) / max(1, len(c.rollout.logprobs)) for c in candidates]
    weights = [math.exp(SHARPNESS * (mean - max(means))) for mean in means]
    best = _heaviest(candidates, weights)
    share = sum(weights[i] for i in best) / sum(weights) if best else 0.0
    if best is None or share < TRUST:
        return None
    first = max(best, key=lambda i: (weights[i], -i))
    vote, answer = vote_answers([candidate.answer for candidate in candidates]), candidates[first].answer
    why = f"confidence: {share:.2f} of the weight for {answer!r}, {len(best)} of {len(candidates)} responses"
    return Label(vote, answer, why, True, candidates[first].rollout.text)
