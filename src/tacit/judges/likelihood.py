"""Likelihood: what the model's own probabilities say of its answers, where nobody was trained to judge them.

Builds on the task and verifiers. A vote counts how often an answer was drawn; each draw also says how likely it was.
Eight short responses are most of what a model would ever say. Their probabilities tell a way of working from a slip
that only looks like it. They cannot tell a misconception from knowledge: there the model is *divided* between two
answers that it is sure of, and that shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tacit.judges.verifiers import Candidate
from tacit.tasks.base import Task

SEEN = 0.05
"""Least probability that the distinct responses of an arm have in all, to be weighed by it. Long responses have next to
none, and count alike."""

RIVAL = 0.3
"""Weight of the second answer, of the first one's, from which a model is divided. .2 to .5 find nearly the same
problems (docs/log/2026-11-29-labels-without-a-judge.md)."""


def masses(arm: Sequence[Candidate]) -> list[float] | None:
    """What each response of one arm weighs: its probability, and nothing if it was drawn before; None where all of them
    are next to nothing."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for one in arm:
        found.append(0.0 if one.rollout.token_ids in seen else math.exp(sum(one.rollout.logprobs)))
        seen.add(one.rollout.token_ids)
    return found if sum(found) >= SEEN else None


def divided(own: Sequence[Candidate], task: Task) -> str | None:
    """Why the samples without memory cannot say which of two answers is right; None if they can."""
    weights = masses(own)
    found = task.ranked([one.answer for one in own], weights)[:2] if weights else []
    if len(found) < 2 or found[1][0] < RIVAL * found[0][0]:
        return None
    (one, first), (other, second) = found
    return f"divided: probability {one:.2f} for {own[first[0]].answer!r}, {other:.2f} for {own[second[0]].answer!r}"


def held(own: Sequence[Candidate], task: Task) -> str | None:
    """The answer that samples hold likeliest, or the one of their plain vote where the model is divided; None if nobody
    gives one."""
    answers, weights = [one.answer for one in own], None if divided(own, task) else masses(own)
    found = task.ranked(answers, weights) if weights else []
    return answers[found[0][1][0]] if found else task.vote(answers).answer
