"""What a family of problems is: how its problems are made, and the one way of working that solves them.

Builds on nothing. A *family* is a kind of problem. Each is solved by one **style** of work (step, split, list, reduce)
in one **temper** (carefully, quickly); any other style gives a mostly wrong answer, and the other temper makes slips.
The model must choose both words before it starts. So a memory can learn *which way to work here*.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

STYLES = {"step": "step by step", "split": "split in parts", "list": "list them all", "reduce": "reduce it first"}
TEMPERS = {"careful": "carefully", "quick": "quickly"}
LUCK = 0.12
"""Chance that a wrong style ends in the right answer."""

SURE, UNSURE, WRONG = (0.64, 0.20), (0.45, 0.53), (0.32, 0.56)
"""Shares of the right style and the habit: mostly right, at odds with itself, mostly wrong."""

Given = tuple[Any, ...]
"""What a problem is about: its numbers, or its words."""
Answer = int | str


class Look(Protocol):
    """One small look-up of a body: returns ``value``, or something near it when the worker slips.

    ``others`` are the values a slip can give instead; without them it is another last digit.
    """

    def __call__(self, value: Any, others: Sequence[Any] = ()) -> Any: ...


# Both the text of each step and the answer are made from looked-up values, so a slip spreads to all that follows.
Work = Callable[[Any, Look], tuple[list[str], Answer]]
Make = Callable[[random.Random], tuple[str, Given]]
Stray = Callable[[str, Any, Any, random.Random], tuple[list[str], Answer]]


@dataclass(frozen=True)
class Family:
    """A kind of problem.

    Attributes:
        name, set: "add", "A".
        style, temper: the way of working that solves it.
        habit: the bad style the base model often falls into here.
        make: draws a problem: its text and what it is about.
        work: the right body for what a problem is about.
        stray: the body of a style that does not fit: (style, given, right answer, random numbers) -> steps, answer.
        shares: how often the corpus uses the right style and the habit; the rest is split between the other two.
        steady: how often the corpus uses the right temper.
        misconception: the body of the habit where it is a consistent wrong method; None where it is mere scatter.
        slip: chance that work in the wrong temper slips, spread over its steps.
        practice: how often the corpus has this family, relative to the others; harder look-ups need more.
        task: the task that reads and compares its answers.
    """

    name: str
    set: str
    style: str
    temper: str
    habit: str
    make: Make = field(repr=False)
    work: Work = field(repr=False)
    stray: Stray = field(repr=False, kw_only=True)
    shares: tuple[float, float]
    steady: float
    misconception: Work | None = field(default=None, repr=False)
    practice: float = 1.0
    slip: float = 0.75
    task: str = "maths"


def exact(value: Any, others: Sequence[Any] = ()) -> Any:
    """The look-up that never slips."""
    return value
