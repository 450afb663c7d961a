"""The source ``families``: streams of made problems, ``--data families:multiply@2,halves,percent@1``.

Builds on the registry, problem, fields, numbers and words. A family is named with its level after "@" (1 to 5; without
one it is 2); a task's name stands for all of its families, and nothing for those whose answer is a number. Problems
come in rounds: each family once, in an order of its own, none twice in a row: so what was learned from one is asked for
again after unlike ones.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator

from tacit.errors import ConfigError
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks.families import numbers, words
from tacit.tasks.families.kind import LEVELS, Kind
from tacit.tasks.fields import Read

NAME = "families"
KINDS = {kind.name: kind for kind in (*numbers.KINDS, *words.KINDS)}
TASKS = tuple(dict.fromkeys(kind.task for kind in KINDS.values()))
USUAL = 2
"""The level of a family that is named without one."""
USED_UP = 200
"""So many draws in a row of what was asked mean that a family has no more at its level."""


def cells(address: str) -> list[tuple[Kind, int | None]]:
    """Families and levels, None where none is said, that the rest of an address names, each once.

    Raises:
        ConfigError: there is no such family or level; the message has the nearest names.
    """
    found: dict[tuple[str, int | None], None] = {}
    for part in filter(None, map(str.strip, (address or "number").split(","))):
        name, at, said = part.partition("@")
        if at and said not in map(str, LEVELS):
            raise ConfigError(
                f"{NAME}:{part}: {said!r} is no level; there are {LEVELS[0]} to {LEVELS[-1]}, as in {name}@2"
            )
        chosen = [kind.name for kind in KINDS.values() if kind.task == name] or [name]
        if chosen == [name] and name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, n=3, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join((*TASKS, *KINDS))}"
            raise ConfigError(f"there is no family {name!r}; {meant}")
        found |= dict.fromkeys((one, int(said) if at else None) for one in chosen)
    return [(KINDS[name], level) for name, level in found]


def item(kind: Kind, level: int, seed: int, index: int) -> tuple[Problem, str]:
    """The problem with this family, level, seed and index, always the same one, and what it is about."""
    label = f"{kind.name}@{level}/{seed}/{index}"
    text, answer, about = kind.draw(random.Random(f"{NAME}/{label}"), level)
    return Problem(label, text, answer, kind.name), about


@register("source", "families")
def stream(address: str, seed: int, limit: int | None) -> Iterator[Read]:
    """Families as the address names them, interleaved; nothing is asked twice, in other words neither, before a family
    has no more at its level."""
    chosen = [(kind, level or USUAL) for kind, level in cells(address)]
    tasks = {kind.task for kind, _ in chosen}
    if "choice" in tasks and len(tasks) > 1:
        raise ConfigError(f"{NAME}:{address} has families with options and without; give one kind of them")
    task = tasks.pop() if len(tasks) == 1 else "text"  # which reads numbers too
    rng = random.Random(f"{NAME}/{address}/{seed}")
    counts, asked = [0] * len(chosen), [set[str]() for _ in chosen]
    last = -1
    while True:
        order = rng.sample(range(len(chosen)), len(chosen))
        if order[0] == last:
            order.reverse()
        for place in order:
            problem, about = _fresh(*chosen[place], seed, counts, place, asked[place])
            asked[place].add(about)
            yield Read(problem, task)
        last = order[-1]


stream.endless = True  # type: ignore[attr-defined]


def _fresh(kind: Kind, level: int, seed: int, counts: list[int], place: int, asked: set[str]) -> tuple[Problem, str]:
    for attempt in range(USED_UP + 1):
        problem, about = item(kind, level, seed, counts[place])
        counts[place] += 1
        if about not in asked:
            break
        if attempt == USED_UP:
            asked.clear()
    return problem, about
