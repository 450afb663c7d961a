"""Rewards: what a rollout is worth while a memory is learned. No reward reads a gold answer.

Builds on the task. ``majority`` is the method's (after TTRL, arXiv 2504.16084): 1 if the rollout's answer is the
label, else 0. ``random`` and ``format`` are controls: a learner that gains as much from them has learned nothing from
its label (arXiv 2506.10947). A new reward is a function of ``Attempts`` that is registered under a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.engines.base import Rollout
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks.base import Task


@dataclass(frozen=True)
class Attempts:
    """A group of rollouts to be rewarded; a reward gives one number for each, usually in 0..1.

    Attributes:
        problem: blind.
        rollouts: with their texts.
        answers: found in them; None where there is none.
        label: what the problem's own responses say its answer is.
        task: on this problem; says when two answers are the same.
        rng: for random rewards.
    """

    problem: Problem
    rollouts: Sequence[Rollout]
    answers: Sequence[str | None]
    label: str
    task: Task
    rng: np.random.Generator


@register("reward", "majority")
def majority(attempts: Attempts) -> list[float]:
    """1 for an answer that is the same as the label, else 0; no answer earns 0."""
    return [float(right) for right in attempts.task.giving(attempts.answers, attempts.label)]


@register("reward", "random")
def random(attempts: Attempts) -> list[float]:
    """A fair coin per rollout: the control that no real gain survives."""
    return [float(flip) for flip in attempts.rng.integers(0, 2, len(attempts.answers))]


@register("reward", "format")
def format(attempts: Attempts) -> list[float]:
    """1 for giving any answer at all, whatever it is: the control for gains that come from form alone."""
    return [float(answer is not None) for answer in attempts.answers]
