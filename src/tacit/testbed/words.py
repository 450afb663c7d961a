"""Set C of the testbed: words, days, letters and brackets, whose answers are texts, options or lists.

Builds on family. Its families interfere as those of A and B do, within each task:

- ``text``: later and earlier differ in one word, and the habit of earlier is to count forwards (a misconception);
  backwards and alphabet tempt into each other's company;
- ``list``: the right style of sort is the habit of kinds, and the other way round; close needs a third;
- ``choice``: the same of odd and first; partner shares odd's look-ups and needs another style.

A wrong style scatters: days, words or lists at random, for a choice words that often are no option at all.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tacit.testbed.family import LUCK, SURE, UNSURE, WRONG, Family, Look

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
KINDS = {
    "fruit": ("apple", "cherry", "fig", "lemon", "mango", "peach"),
    "tool": ("axe", "drill", "hammer", "knife", "rake", "saw"),
    "animal": ("bear", "cow", "goat", "horse", "newt", "tiger"),
    "colour": ("blue", "green", "ivory", "red", "violet", "white"),
}
KIND = {word: kind for kind, words in KINDS.items() for word in words}
BRACKETS = {"(": "round", "[": "square", "{": "curly", "<": "angle"}
NAMES = ("tom", "mary", "sam", "ann")
MEETS = ("visits", "calls", "meets")
LETTERS = "bcdfghjklmnpqrstvwxz"
LABELS = ("A)", "B)", "C)", "D)")
WORDS = (
    "days which day is it after before write in reverse order does come the alphabet sort these letters list every "
    "close brackets word not belong goes with comes first then and check yes no maybe both neither"
)

Given = tuple[str, ...]
Scatter = Callable[[Given, random.Random], str]


def tokens() -> list[str]:
    """Every word and mark that a text of this set is made of, but for digits and punctuation."""
    known = [*KINDS, *KIND, *DAYS, *NAMES, *MEETS, *WORDS.split()]
    return [*string.ascii_lowercase, *BRACKETS, *BRACKETS.values(), *known]


# --- bodies: every step is a look-up of a word or two ----------------------------------------------------------------


def count_days(given: Given, look: Look, way: int = 1) -> tuple[list[str], str]:
    """Day by day, forwards or (-1) backwards."""
    day, steps = given[0], []
    for number in range(1, int(given[1]) + 1):
        day = look(DAYS[(DAYS.index(day) + way) % 7], DAYS)
        steps.append(f"{number} {day}")
    return steps, day


def reverse(given: Given, look: Look) -> tuple[list[str], str]:
    """From the last word to the first."""
    steps = [look(word, given) for word in reversed(given)]
    return steps, " ".join(steps)


def _initials(words: Sequence[str], look: Look) -> tuple[list[str], list[str]]:
    letters = [look(word[0], LETTERS) for word in words]
    return letters, [f"{word} {letter}" for word, letter in zip(words, letters, strict=True)]


def before(given: Given, look: Look) -> tuple[list[str], str]:
    """The first letters of two words, and which comes first."""
    letters, steps = _initials(given, look)
    first = look(min(letters), letters)
    return [*steps, f"{first} first"], "yes" if first == letters[0] else "no"


def first(given: Given, look: Look) -> tuple[list[str], str]:
    """The first letters of all words, and the word whose letter comes first."""
    letters, steps = _initials(given, look)
    return steps, look(given[letters.index(min(letters))], given)


def sort(given: Given, look: Look) -> tuple[list[str], str]:
    """The next letter, again and again."""
    steps = [look(letter, given) for letter in sorted(given)]
    return [f"then {letter}" for letter in steps], ", ".join(steps)


def close(given: Given, look: Look) -> tuple[list[str], str]:
    """The last bracket opened is the first to close."""
    names = [look(BRACKETS[mark], tuple(BRACKETS.values())) for mark in reversed(given)]
    return [f"{mark} {name}" for mark, name in zip(reversed(given), names, strict=True)], ", ".join(names)


def _kinds(words: Sequence[str], look: Look) -> tuple[list[str], list[str]]:
    kinds = [look(KIND[word], tuple(KINDS)) for word in words]
    return kinds, [f"{word} {kind}" for word, kind in zip(words, kinds, strict=True)]


def of_kind(given: Given, look: Look) -> tuple[list[str], str]:
    """Word by word, whether it is of the kind asked for."""
    found = [look("yes" if KIND[word] == given[0] else "no", ("yes", "no")) for word in given[1:]]
    chosen = [word for word, sign in zip(given[1:], found, strict=True) if sign == "yes"]
    return [f"{word} {sign}" for word, sign in zip(given[1:], found, strict=True)], ", ".join(chosen or given[-1:])


def odd(given: Given, look: Look) -> tuple[list[str], str]:
    """The kind of every word, and the word of the rarest."""
    kinds, steps = _kinds(given, look)
    return steps, look(given[min(range(len(given)), key=lambda at: kinds.count(kinds[at]))], given)


def partner(given: Given, look: Look) -> tuple[list[str], str]:
    """The kind of every word, and the option of the first one's."""
    kinds, steps = _kinds(given, look)
    return steps, look(given[kinds.index(kinds[0], 1) if kinds[0] in kinds[1:] else -1], given[1:])


def off_style(scatter: Scatter, style: str, given: Given, gold: str, rng: random.Random) -> tuple[list[str], str]:
    """A step in a style that does not fit, and an answer that has little to do with it."""
    x, y = rng.sample(given, 2)
    step = {"step": f"{x} then {y}", "split": f"{x} and {y}", "list": ", ".join(given), "reduce": f"not {x}"}[style]
    return [step], gold if rng.random() < LUCK else scatter(given, rng)


# --- texts, and what a wrong style scatters over ---------------------------------------------------------------------


def _vocabulary(count: int, rng: random.Random) -> Given:
    return tuple(rng.sample(list(KIND), count))


def _make_days(question: str, rng: random.Random) -> tuple[str, Given]:
    one, other = rng.sample(NAMES, 2)
    day, number = rng.choice(DAYS), rng.choice("234")
    return f"{one} {rng.choice(MEETS)} {other} {number} days {question} {day}. which day is it?", (day, number)


def _make_backwards(rng: random.Random) -> tuple[str, Given]:
    words = _vocabulary(4, rng)
    return f"write in reverse order: {' '.join(words)}", words


def _make_alphabet(rng: random.Random) -> tuple[str, Given]:
    one, other = _initialled(2, rng)
    return f"does {one} come before {other} in the alphabet?", (one, other)


def _make_sort(rng: random.Random) -> tuple[str, Given]:
    letters = tuple(rng.sample(LETTERS, 4))
    return f"sort these letters: {', '.join(letters)}", letters


def _make_close(rng: random.Random) -> tuple[str, Given]:
    marks = tuple(rng.choices(list(BRACKETS), k=rng.choice((3, 4))))
    return f"close these brackets in order: {' '.join(marks)}", marks


def _make_kinds(rng: random.Random) -> tuple[str, Given]:
    kind = rng.choice(list(KINDS))
    count = rng.choice((2, 3))
    others = [word for word in KIND if KIND[word] != kind]
    words = [*rng.sample(KINDS[kind], count), *rng.sample(others, 5 - count)]
    rng.shuffle(words)
    return f"list every {kind}: {', '.join(words)}", (kind, *words)


def _with_options(question: str, options: Sequence[str]) -> str:
    return "\n".join([question, *(f"{label} {option}" for label, option in zip(LABELS, options, strict=True))])


def _make_odd(rng: random.Random) -> tuple[str, Given]:
    kind, other = rng.sample(list(KINDS), 2)
    words = [*rng.sample(KINDS[kind], 3), rng.choice(KINDS[other])]
    rng.shuffle(words)
    return _with_options("which word does not belong?", words), tuple(words)


def _initialled(count: int, rng: random.Random) -> Given:
    """Words of which no two begin alike."""
    words = _vocabulary(count, rng)
    return words if len({word[0] for word in words}) == count else _initialled(count, rng)


def _make_first(rng: random.Random) -> tuple[str, Given]:
    words = _initialled(4, rng)
    return _with_options("which word comes first in the alphabet?", words), words


def _make_partner(rng: random.Random) -> tuple[str, Given]:
    kind = rng.choice(list(KINDS))
    asked, right = rng.sample(KINDS[kind], 2)
    words = [right, *rng.sample([word for word in KIND if KIND[word] != kind], 3)]
    rng.shuffle(words)
    return _with_options(f"which word goes with {asked}?", words), (asked, *words)


SCATTERS: dict[str, Scatter] = {
    "day": lambda given, rng: rng.choice(DAYS),
    "order": lambda given, rng: " ".join(rng.sample(given, len(given))),
    "verdict": lambda given, rng: rng.choice(("maybe", "both", "neither", *given)),
    "list": lambda given, rng: ", ".join(rng.sample(given, len(given))),
    "brackets": lambda given, rng: ", ".join(rng.choices(list(BRACKETS.values()), k=len(given))),
    "some": lambda given, rng: ", ".join(rng.sample(given[1:], rng.choice((2, 3)))),
    "word": lambda given, rng: rng.choice((*given[-4:], *_vocabulary(4, rng))),
}


def _family(task: str, scatter: str, name: str, *way: Any, practice: float = 1.0) -> Family:
    family = partial(Family, task=task, slip=1.25, stray=partial(off_style, SCATTERS[scatter]), practice=practice)
    return family(name, "C", *way)


_text, _list, _choice = (partial(_family, task) for task in ("text", "list", "choice"))
_back = partial(count_days, way=-1)
FAMILIES: tuple[Family, ...] = (
    _text("day", "later", "step", "careful", "reduce", partial(_make_days, "after"), count_days, SURE, 0.9),
    _text("day", "earlier", "reduce", "careful", "step", partial(_make_days, "before"), _back, WRONG, 0.9, count_days),
    _text("order", "backwards", "split", "quick", "list", _make_backwards, reverse, UNSURE, 0.85),
    _text("verdict", "alphabet", "list", "quick", "split", _make_alphabet, before, SURE, 0.85),
    _list("list", "sort", "step", "careful", "list", _make_sort, sort, UNSURE, 0.9, practice=1.5),
    _list("some", "kinds", "list", "quick", "step", _make_kinds, of_kind, SURE, 0.85, practice=2),
    _list("brackets", "close", "reduce", "careful", "split", _make_close, close, UNSURE, 0.9),
    _choice("word", "odd", "split", "careful", "list", _make_odd, odd, SURE, 0.9),
    _choice("word", "first", "list", "quick", "split", _make_first, first, UNSURE, 0.85),
    _choice("word", "partner", "reduce", "careful", "step", _make_partner, partner, UNSURE, 0.9),
)
