"""Rewards: what a rollout is worth while a memory is learned. No reward reads a gold answer.

Builds on answers. ``majority`` is the method's (after TTRL, arXiv 2504.16084): 1 if the rollout's answer is equivalent
to the label, else 0. ``random`` and ``format`` are controls: a learner that gains as much from them has learned
nothing from its label (arXiv 2506.10947). A new reward is a function of the same signature given to ``register``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tacit.answers.vote import equivalent, normalise
from tacit.errors import ConfigError

Reward = Callable[[Sequence[str | None], str, np.random.Generator], list[float]]
"""(answers of a group of rollouts, label, generator for random rewards) -> one reward per rollout, usually in 0..1."""

_REWARDS: dict[str, Reward] = {}


def register(name: str, reward: Reward) -> None:
    """Make a reward available under a name, for ``LearnConfig.reward`` and ``--reward``.

    Raises:
        ConfigError: the name is taken by another reward.
    """
    if _REWARDS.get(name, reward) is not reward:
        raise ConfigError(f"there is already a reward named {name!r}; register yours under another name")
    _REWARDS[name] = reward


def get(name: str) -> Reward:
    """The reward of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _REWARDS:
        raise ConfigError(f"unknown reward {name!r}; use one of {', '.join(sorted(_REWARDS))}")
    return _REWARDS[name]


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


def random(answers: Sequence[str | None], label: str, rng: np.random.Generator) -> list[float]:
    """A fair coin per rollout: the control that no real gain survives."""
    return [float(flip) for flip in rng.integers(0, 2, len(answers))]


def format(answers: Sequence[str | None], label: str, rng: np.random.Generator) -> list[float]:
    """1 for giving any answer at all, whatever it is: the control for gains that come from form alone."""
    return [float(answer is not None) for answer in answers]


register("majority", majority)
register("random", random)
register("format", format)
