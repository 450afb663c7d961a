"""What a family of made problems is: how its problems are drawn at each level, the ways they are asked, and the task.

Builds on nothing.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LEVELS = range(1, 6)
"""The dial: from the easiest to the hardest."""

Given = Mapping[str, object]
"""What a problem is about, by the names that phrasings have places for."""
Made = tuple[Given, object]
"""What a problem is about, and its reference answer."""
Make = Callable[[random.Random, int], Made]


@dataclass(frozen=True)
class Kind:
    """A family.

    Attributes:
        name: that addresses and reports call it by.
        task: the task that reads its answers: number, text or choice.
        make: draws a problem of a level.
        phrasings: the ways it is asked, with places for what ``make`` gives.
    """

    name: str
    task: str
    make: Make = field(repr=False)
    phrasings: tuple[str, ...] = field(repr=False)

    def draw(self, rng: random.Random, level: int) -> tuple[str, str, str]:
        """A problem of a level: its text, its reference answer, and what it is about, however it is asked."""
        given, answer = self.make(rng, level)
        about = "/".join(str(given[name]) for name in sorted(given))
        return rng.choice(self.phrasings).format(**given), str(answer), about


_ASKED = tomllib.loads(Path(__file__).with_name("asked.toml").read_text(encoding="utf-8"))


def kinds(task: str, made: Mapping[str, Make]) -> tuple[Kind, ...]:
    """Families of one task by what makes them; asked.toml has the ways they are asked."""
    return tuple(Kind(name, task, make, tuple(_ASKED[name])) for name, make in made.items())
