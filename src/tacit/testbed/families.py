"""The testbed's problems: all families, which of their texts are held out, and the endless stream of fresh ones.

Builds on errors, arithmetic (sets A and B) and words (set C). A quarter of all problem texts is held out from the
training corpus. The stream is drawn from that quarter alone. A and B have one model, C has another.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tacit.errors import ConfigError
from tacit.testbed import arithmetic, words
from tacit.testbed.family import Answer, Family, Given, exact

SETS = {
    "AB": arithmetic.FAMILIES,
    **{name: tuple(family for family in arithmetic.FAMILIES if family.set == name) for name in "AB"},
    "C": words.FAMILIES,
    **{f"C:{task}": tuple(f for f in words.FAMILIES if f.task == task) for task in ("text", "choice", "list")},
}
"""Families by the name of their set; those of C also by the task that reads their answers."""


class Item(NamedTuple):
    """One problem of the stream. ``id`` is set/family/seed/index, and the problem is a function of it."""

    id: str
    text: str
    gold: str
    family: str


BY_NAME = {family.name: family for family in (*SETS["AB"], *SETS["C"])}
USED_UP = 500
"""So many draws in a row without a new text mean that a family has no more."""


def members(which: str) -> tuple[Family, ...]:
    """The families of a set: a key of ``SETS``."""
    if which not in SETS:
        raise ConfigError(f"The testbed has the sets {', '.join(SETS)}; there is no set {which!r}.")
    return SETS[which]


def held_out(text: str) -> bool:
    """Whether this problem text is kept out of the training corpus (a quarter of all, by checksum of the text, whatever
    the order of its options)."""
    question, *options = text.split("\n")
    known = "\n".join([question, *sorted(option[3:] for option in options)])
    return zlib.crc32(known.encode()) % 4 == 0


def draw(family: Family, rng: random.Random, unseen: bool) -> tuple[str, Given, Answer]:
    """A problem of this family, from the held-out quarter or from the rest: text, what it is about, gold answer."""
    while True:
        text, given = family.make(rng)
        if held_out(text) == unseen:
            return text, given, family.work(given, exact)[1]


def item(name: str, seed: int, index: int) -> Item:
    """The problem with this family, seed and index: always the same one."""
    family = BY_NAME[name]
    label = f"{family.set}/{name}/{seed}/{index}"
    text, _, gold = draw(family, random.Random(label), unseen=True)
    return Item(label, text, str(gold), name)


def problems(which: str = "AB", seed: int = 0) -> Iterator[Item]:
    """An endless stream of fresh problems of a set, families interleaved at random.

    A problem depends on its own id alone. So "A" and "AB" of one seed hand out the same problems in another order. Ids
    never repeat, and no text comes twice before its family's are used up (the smallest has about fifty).
    """
    families = members(which)
    rng = random.Random(f"stream/{which}/{seed}")
    counts = dict.fromkeys((family.name for family in families), 0)
    seen: dict[str, set[str]] = {family.name: set() for family in families}
    while True:
        name = rng.choice(families).name
        for attempt in range(USED_UP + 1):
            made = item(name, seed, counts[name])
            counts[name] += 1
            if made.text not in seen[name]:
                break
            if attempt == USED_UP:
                seen[name].clear()
        seen[name].add(made.text)
        yield made
