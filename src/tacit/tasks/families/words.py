"""Families whose answer is a word, or one of a few options.

Builds on kind; the words of most are in pairs.toml, the ways the others are asked in asked.toml. A level sets how rare
or long the words are, how far to count, or how many options there are. All ask what or which: the task finds an answer
in a sentence by what the question does not say.
"""

from __future__ import annotations

import random
import string
import tomllib
from functools import partial
from pathlib import Path

from tacit.tasks.families.kind import Kind, Made, kinds

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
BY_LENGTH = (
    "cat sun map pen dog cup hat bus ice net".split(),
    "lamp tree book fish milk ring door wolf king salt".split(),
    "bread stone river plant chair house tiger music horse train".split(),
    "planet garden window bridge silver doctor pencil rabbit flower castle".split(),
    "blanket elephant chocolate mountain strawberry telephone butterfly newspaper hospital umbrella".split(),
)
"""Words by level."""
PAIRS = tomllib.loads(Path(__file__).with_name("pairs.toml").read_text(encoding="utf-8"))
"""Kinds that ask for the other word of a pair, by name: the ways they are asked, and pairs by level."""
SORTS = {
    "animal": "cow goat horse tiger bear rabbit".split(),
    "fruit": "apple cherry lemon mango peach plum".split(),
    "colour": "blue green red white yellow purple".split(),
    "tool": "hammer saw drill axe rake spade".split(),
    "drink": "water tea milk coffee juice beer".split(),
    "country": "France Spain Japan Brazil Egypt Canada".split(),
}
UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
UNITS += "seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _word(rng: random.Random, level: int) -> str:
    return rng.choice(BY_LENGTH[level - 1])


def _end(place: int, rng: random.Random, level: int) -> Made:
    word = _word(rng, level)
    return {"word": word}, word[place]


def _reverse(rng: random.Random, level: int) -> Made:
    word = _word(rng, level)
    return {"word": word}, word[::-1]


def _paired(pairs: list[str], rng: random.Random, level: int) -> Made:
    word, _, other = rng.choice(pairs[level - 1].split()).replace("_", " ").partition(":")
    return {"word": word}, other


def _later(names: list[str], unit: str, rng: random.Random, level: int) -> Made:
    place, steps = rng.randrange(len(names)), (1, rng.randint(1, 2), rng.randint(2, 3), rng.randint(3, 5), 6)[level - 1]
    said = f"1 {unit}" if steps == 1 else f"{steps} {unit}s"
    return {"name": names[place], "steps": said}, names[(place + steps) % len(names)]


def _following(rng: random.Random, level: int) -> Made:
    place, step = rng.randrange(20), level if rng.random() < 0.5 else 1
    letter = string.ascii_uppercase[place]
    return {"letter": letter, "place": "" if step == 1 else f"{step} places "}, string.ascii_uppercase[place + step]


def _odd(rng: random.Random, level: int) -> Made:
    number = rng.randint(10 ** (level - 1), 10**level)
    return {"a": number}, "odd" if number % 2 else "even"


def _spelled(rng: random.Random, level: int) -> Made:
    number = rng.randint(1, 9) if level == 1 else rng.randint(*((10, 19), (20, 59), (60, 99), (100, 999))[level - 2])
    return {"a": number}, in_words(number)


def in_words(number: int) -> str:
    """A number below a thousand in words."""
    if number < len(UNITS):
        return UNITS[number]
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{UNITS[number // 100]} hundred{rest}"
    return TENS[number // 10 - 2] + (f"-{UNITS[number % 10]}" if number % 10 else "")


def _first(rng: random.Random, level: int) -> Made:
    count = min(2 + level // 2, 4)
    words = rng.sample([word for row in BY_LENGTH[: level + 1] for word in row], count)
    return {"words": ", ".join(words)}, min(words)


def _sort_of(rng: random.Random, level: int) -> Made:
    sort, *others = rng.sample(list(SORTS), min(level + 1, 5))
    right = rng.choice(SORTS[sort])
    return _options([right, *(rng.choice(SORTS[other]) for other in others)], rng, sort=sort)


def _opposite_of(rng: random.Random, level: int) -> Made:
    pairs = [pair.split(":") for pair in rng.sample(PAIRS["opposites"]["pairs"][level - 1].split(), min(level + 1, 4))]
    return _options([other for _, other in pairs], rng, word=pairs[0][0])


def _biggest(rng: random.Random, level: int) -> Made:
    numbers = sorted(rng.sample(range(1, (9, 20, 99, 999, 9999)[level - 1]), min(level + 1, 5)), reverse=True)
    return _options(list(map(str, numbers)), rng)


def _options(texts: list[str], rng: random.Random, **given: str) -> Made:
    """Options in another order, and the letter of the one that was first."""
    right = texts[0]
    shown = rng.sample(texts, len(texts))
    lines = "\n".join(f"{letter}) {text}" for letter, text in zip(string.ascii_uppercase, shown, strict=False))
    return {**given, "options": lines}, string.ascii_uppercase[shown.index(right)]


KINDS: tuple[Kind, ...] = (
    *kinds(
        "text",
        {
            "first-letter": partial(_end, 0),
            "last-letter": partial(_end, -1),
            "reverse": _reverse,
            "weekdays": partial(_later, DAYS, "day"),
            "month-order": partial(_later, MONTHS, "month"),
            "alphabet": _following,
            "odd-or-even": _odd,
            "in-words": _spelled,
            "first-word": _first,
        },
    ),
    *kinds("choice", {"which-sort": _sort_of, "which-opposite": _opposite_of, "which-largest": _biggest}),
    *(Kind(name, "text", partial(_paired, kind["pairs"]), tuple(kind["ask"])) for name, kind in PAIRS.items()),
)
