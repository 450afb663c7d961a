"""What a method will spend on a stream, said before any model is loaded: the counts behind ``tacit compare --dry-run``.

Builds on config. A method answers ``plan(setting)`` with a ``Plan``: how many rollouts it samples, in how many calls;
how many of them go through a gradient pass; and what it trains. All are upper bounds: every problem finds a memory, and
every vote is clear enough to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tacit.config import LearnConfig, RecallConfig, Sampling


@dataclass(frozen=True)
class Setting:
    """What a method would run with.

    Attributes:
        problems: of the stream.
        window: problems answered before it learns from them.
        training: labelled problems besides, for methods that train on them.
        verified: whether there is a verifier whose scores are probabilities.
        options: of the method, defaults filled in.
    """

    problems: int
    window: int = 1
    training: int = 0
    verified: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    learning: LearnConfig = field(default_factory=LearnConfig)
    recalling: RecallConfig = field(default_factory=RecallConfig)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def responses(self) -> int:
        """Rollouts of one way of answering one problem: the samples and the greedy one."""
        return self.sampling.samples + 1

    @property
    def windows(self) -> list[int]:
        """Problems of each window."""
        whole, rest = divmod(self.problems, self.window)
        return [self.window] * whole + [rest] * (rest > 0)


@dataclass(frozen=True)
class Work:
    """One kind of work, summed over a stream.

    Attributes:
        what: "answer" (done again for every probe), "learn", or "prepare" (before the first problem).
        rollouts: sampled.
        calls: of the engine, one after the other, that they are spread over.
        trained: of these rollouts, how many go through a gradient pass.
        steps: gradient steps.
        shown: worked examples in a prompt, on average, each a problem and an answer long.
    """

    what: str
    rollouts: int
    calls: int
    trained: int = 0
    steps: int = 0
    shown: float = 0


@dataclass(frozen=True)
class Plan:
    """What a method spends at most.

    Attributes:
        work: its parts.
        policy: what it trains: "none"; "memory", a soft prompt for each problem; "soft", "lora" or "full", one soft
            prompt, adapters, or all weights of a copy of the model.
        rank: of LoRA.
        scored: responses that the verifier reads.
        cannot: why it will fail with this setting; empty if nothing is known to be wrong.
    """

    work: tuple[Work, ...]
    policy: str = "none"
    rank: int = 0
    scored: int = 0
    cannot: str = ""

    @property
    def rollouts(self) -> int:
        """In all."""
        return sum(one.rollouts for one in self.work)

    @property
    def steps(self) -> int:
        """Gradient steps in all."""
        return sum(one.steps for one in self.work)


def answering(setting: Setting, arms: int = 1, shown: float = 0) -> Work:
    """Every problem is answered in ``arms`` ways, window by window."""
    rollouts = setting.problems * setting.responses * arms
    return Work("answer", rollouts, len(setting.windows), shown=shown)


def remembering(setting: Setting) -> Work:
    """A memory is learned of every problem, ``batch`` of a window at once."""
    learning = setting.learning
    calls = learning.steps * sum(-(-size // learning.batch) for size in setting.windows)
    rollouts = setting.problems * learning.steps * learning.rollouts
    steps = setting.problems * (learning.steps + learning.distil)
    return Work("learn", rollouts, calls, trained=rollouts + setting.problems * learning.distil, steps=steps)


def training(setting: Setting, what: str, problems: int, epochs: int, batch: int, votes: int = 0) -> Work:
    """``epochs`` passes over problems, ``batch`` of them a gradient step."""
    rollouts = setting.learning.rollouts
    steps = epochs * -(-problems // batch)
    return Work(
        what, problems * epochs * max(votes, rollouts), steps, trained=problems * epochs * rollouts, steps=steps
    )
