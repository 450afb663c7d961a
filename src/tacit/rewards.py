"""Rewards: what a rollout is worth while a memory is learned. No reward reads a gold answer.

Builds on answers. ``majority`` is the method's (after TTRL, arXiv 2504.16084): 1 if the rollout's answer is equivalent
to the label, else 0. ``random`` and ``format`` are controls: a learner that gains as much from them has learned
nothing from its label (arXiv 2506.10947). A new reward is a function of the same signature, registered under a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tacit.answers.vote import equivalent, normalise
from tacit.registry import register

Reward = Callable[[Sequence[str | None], str, np.random.Generator], list[float]]
"""(answers of a group of rollouts, label, generator for random rewards) -> one reward per rollout, usually in 0..1."""


@register("reward", "majority")
def majority(answers: Sequence[str | None], label: str, rng: np.random.Generator) -> list[float]:
    """1 for an answer equivalent to the label, else 0; no answer earns 0."""
    known: dict[str, float] = {normalise(label): 1.0}
    rewards = []
    for answer in answers:
        if answer is None:
            rewards.append(0.0)
            continue
        text = normalise(answer)
        if text not in known:
            known[text] = float(equivalent(answer, label))
        rewards.append(known[text])
    return rewards


@register("reward", "random")
def random(answers: Sequence[str | None], label: str, rng: np.random.Generator) -> list[float]:
    """A fair coin per rollout: the control that no real gain survives."""
    return [float(flip) for flip in rng.integers(0, 2, len(answers))]


@register("reward", "format")
def format(answers: Sequence[str | None], label: str, rng: np.random.Generator) -> list[float]:
    """1 for giving any answer at all, whatever it is: the control for gains that come from form alone."""
    return [float(answer is not None) for answer in answers]
