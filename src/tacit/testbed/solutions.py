"""Solution texts: the work of an author with a style and a temper, with each step marked right or wrong.

Builds on family. A solution reads ``carefully, step by step: 4 + 8 = 12; 3 + 5 + 1 = 9; Answer: 92``: the temper, the
style, the steps, the answer. Parts are joined by ``SEPARATOR``, which is how the reward model finds the steps again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tacit.testbed.family import STYLES, TEMPERS, Family, Given, exact

SEPARATOR = ";"


@dataclass(frozen=True)
class Solution:
    """A written solution: its parts (steps, then the answer), and for each whether all is right so far."""

    parts: tuple[str, ...]
    right: tuple[bool, ...]
    style: str
    temper: str

    @property
    def text(self) -> str:
        return f"{SEPARATOR} ".join(self.parts)


class Slips:
    """A look-up that gives another value with the given chance."""

    def __init__(self, rng: random.Random, chance: float) -> None:
        self.rng, self.chance = rng, chance

    def __call__(self, value: Any, others: Sequence[Any] = ()) -> Any:
        if self.rng.random() >= self.chance:
            return value
        others = others or [value - value % 10 + digit for digit in range(10) if digit != value % 10]
        return self.rng.choice([other for other in others if other != value] or [value])


def heading(style: str, temper: str) -> str:
    """The words that open a solution."""
    return f"{TEMPERS[temper]}, {STYLES[style]}: "


def choose(family: Family, rng: random.Random) -> tuple[str, str]:
    """A style and a temper as the mixture of this family has them."""
    right, habit = family.shares
    others = [style for style in STYLES if style not in (family.style, family.habit)]
    weights = [right, habit, *[(1 - right - habit) / 2] * 2]
    style = rng.choices([family.style, family.habit, *others], weights)[0]
    temper = family.temper if rng.random() < family.steady else other_temper(family.temper)
    return style, temper


def other_temper(temper: str) -> str:
    return "quick" if temper == "careful" else "careful"


def exact_parts(family: Family, given: Given, temper: str) -> tuple[str, ...]:
    """The parts of the solution in the right style and this temper when nothing slips."""
    steps, answer = family.work(given, exact)
    if temper != family.temper and family.temper == "quick":
        steps = [*steps, *(f"check {step}" for step in steps)]
    parts = [*steps, f"Answer: {answer}"]
    parts[0] = heading(family.style, temper) + parts[0]
    return tuple(parts)


def marks(parts: Sequence[str], wanted: Sequence[str]) -> tuple[bool, ...]:
    """For each part, whether it and all before it are what an exact worker writes."""
    right, marked = True, []
    for i, part in enumerate(parts):
        right = right and i < len(wanted) and part == wanted[i]
        marked.append(right)
    return tuple(marked)


def write(family: Family, given: Given, style: str, temper: str, rng: random.Random) -> Solution:
    """A solution in this style and temper."""
    slipping = temper != family.temper
    if style == family.style:
        steps = family.work(given, exact)[0]
        look = Slips(rng, family.slip / len(steps) if slipping else 0.0)
        if slipping and family.temper == "quick":
            # Overthinking: the work is right at first, and the check of it is what goes wrong.
            checks, answer = family.work(given, look)
            steps = [*steps, *(f"check {step}" for step in checks)]
        else:
            steps, answer = family.work(given, look)
    elif style == family.habit and family.misconception:
        length = len(family.misconception(given, exact)[0])
        steps, answer = family.misconception(given, Slips(rng, family.slip / length if temper == "quick" else 0.0))
    else:
        steps, answer = family.stray(style, given, family.work(given, exact)[1], rng)
    parts = [*steps, f"Answer: {answer}"]
    parts[0] = heading(style, temper) + parts[0]
    return Solution(tuple(parts), marks(parts, exact_parts(family, given, temper)), style, temper)


def answer(text: str) -> str | None:
    """The answer a solution text ends with, or None if it ends with none."""
    found = re.search(r"Answer: (\d+|[a-z]+(?:,? [a-z]+)*)$", text.strip())
    return found[1] if found else None


def split(text: str) -> list[str]:
    """The parts of a solution text."""
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()]


def judge(family: Family, given: Given, text: str) -> tuple[list[str], tuple[bool, ...]]:
    """The parts of any solution text, each marked right or wrong against the exact work in its own temper."""
    parts = split(text)
    temper = next((temper for temper, word in TEMPERS.items() if text.startswith(word)), family.temper)
    return parts, marks(parts, exact_parts(family, given, temper))
