"""Families whose answer is a number: arithmetic, comparisons, sequences, dates and units, and short stories.

Builds on kind and words; asked.toml has the ways they are asked. A level sets the size of the numbers, or how many
there are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from tacit.tasks.families.kind import Kind, Made, Make, kinds
from tacit.tasks.families.words import BY_LENGTH, MONTHS

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Tom")
THINGS = ("apples", "books", "coins", "pens", "stickers", "shells")
BOXES = (("boxes", "eggs"), ("bags", "apples"), ("shelves", "books"), ("packs", "pencils"), ("rows", "chairs"))
LEGS = (("chickens", 2), ("dogs", 4), ("ants", 6), ("spiders", 8))
UNITS = (("minutes", "hours", 60), ("days", "weeks", 7), ("months", "years", 12), ("hours", "days", 24))

MOST = (10, 20, 50, 100, 1000)
"""Largest number of a problem, by level."""
FACTOR = (5, 9, 12, 20, 99)
"""Largest of the two factors, by level; the other one has a digit."""


def _most(level: int) -> int:
    return MOST[level - 1]


def _factors(rng: random.Random, level: int) -> tuple[int, int]:
    """Two factors, of which one is above those of the level before where that is more than a digit."""
    most = FACTOR[level - 1]
    one, other = rng.randint(10 if most > 9 else 2, most), rng.randint(2, 9)
    return (one, other) if rng.random() < 0.5 else (other, one)


def _multiply(rng: random.Random, level: int) -> Made:
    a, b = _factors(rng, level)
    return {"a": a, "b": b}, a * b


def _divide(rng: random.Random, level: int) -> Made:
    a, b = _factors(rng, level)
    return {"a": a * b, "b": b}, a


def _sum(rng: random.Random, level: int) -> Made:
    a, b = (rng.randint(_most(level) // 10 + 1, _most(level) - 1) for _ in "ab")
    return {"a": a, "b": b}, a + b


def _difference(rng: random.Random, level: int) -> Made:
    b, a = sorted(rng.sample(range(_most(level) // 10 + 1, _most(level)), 2))
    return {"a": a, "b": b}, a - b


def _double(rng: random.Random, level: int) -> Made:
    a = rng.randint(_most(level) // 5, _most(level))
    return {"a": a}, 2 * a


def _half(rng: random.Random, level: int) -> Made:
    a = rng.randint(_most(level) // 5, _most(level))
    return {"a": 2 * a}, a


def _percent(rng: random.Random, level: int) -> Made:
    share = rng.choice(((50,), (10, 50), (10, 20, 50), (10, 20, 25, 50), (5, 15, 20, 30, 75))[level - 1])
    of = 20 * rng.randint(1, (5, 5, 10, 20, 50)[level - 1])
    return {"a": share, "b": of}, share * of // 100


def _square(rng: random.Random, level: int) -> Made:
    a = rng.randint(2, (5, 10, 15, 30, 99)[level - 1])
    return {"a": a}, a * a


def _remainder(rng: random.Random, level: int) -> Made:
    b = rng.randint(2, (3, 5, 9, 12, 20)[level - 1])
    a = b * rng.randint(1, (3, 5, 9, 12, 20)[level - 1]) + rng.randint(0, b - 1)
    return {"a": a, "b": b}, a % b


def _neighbour(step: int, rng: random.Random, level: int) -> Made:
    a = rng.randint(_most(level) // 10 + 1, _most(level))
    return {"a": a}, a + step


def _more(rng: random.Random, level: int) -> Made:
    a, b = rng.randint(11, 11 * _most(level)), (10, 10, 20, 50, 100)[level - 1]
    return {"a": a, "b": b}, a + b


def _rounded(rng: random.Random, level: int) -> Made:
    a, to = rng.randint(11, 11 * _most(level)), 10 if level < 4 else 100
    return {"a": a, "to": to}, (a + to // 2) // to * to


def _extreme(choose: Callable[[list[int]], int], rng: random.Random, level: int) -> Made:
    count, most = ((2, 9), (3, 9), (3, 99), (4, 99), (5, 999))[level - 1]
    numbers = rng.sample(range(1, most + 1), count)
    return {"numbers": ", ".join(map(str, numbers))}, choose(numbers)


def _next(rng: random.Random, level: int) -> Made:
    step = rng.choice(((1, 2), (2, 5, 10), (3, 4, 5), (6, 7, 8, 9), (11, 12, 13, 15))[level - 1])
    first = rng.randint(1, _most(level)) if level > 1 else step * rng.randint(1, 9)
    numbers = [first + step * number for number in range(5)]
    return {"numbers": ", ".join(map(str, numbers[:4]))}, numbers[4]


def _backwards(rng: random.Random, level: int) -> Made:
    step = rng.choice(((1,), (1, 2), (2, 5), (3, 4), (6, 7, 8))[level - 1])
    first = 4 * step + rng.randint(1, _most(level))
    return {"numbers": ", ".join(str(first - step * number) for number in range(4))}, first - 4 * step


def _doubling(rng: random.Random, level: int) -> Made:
    first = rng.randint(1, (5, 9, 15, 25, 60)[level - 1])
    return {"numbers": ", ".join(str(first * 2**number) for number in range(3))}, first * 8


def _letters(rng: random.Random, level: int) -> Made:
    word = rng.choice(BY_LENGTH[level - 1])
    return {"word": word}, len(word)


def _month(rng: random.Random, level: int) -> Made:
    number = rng.randint(1, (3, 6, 12, 12, 12)[level - 1])
    later = 0 if level < 4 else rng.randint(1, 2 if level == 4 else 6)
    asked = MONTHS[number - 1] if not later else f"{later} after {MONTHS[number - 1]}"
    return {"month": asked}, (number + later - 1) % 12 + 1


def _units(rng: random.Random, level: int) -> Made:
    small, large, factor = rng.choice(UNITS)
    count = rng.randint(2, (3, 5, 9, 20, 60)[level - 1])
    return {"small": small, "large": large, "count": count}, count * factor


def _later(rng: random.Random, level: int) -> Made:
    at, hours = rng.randint(1, 11), rng.randint(1, (2, 4, 6, 9, 11)[level - 1])
    return {"at": at, "hours": "1 hour" if hours == 1 else f"{hours} hours"}, (at + hours - 1) % 12 + 1


def _boxes(rng: random.Random, level: int) -> Made:
    given, product = _multiply(rng, level)
    boxes, things = rng.choice(BOXES)
    return {**given, "boxes": boxes, "things": things}, product


def _legs(rng: random.Random, level: int) -> Made:
    animals, legs = rng.choice(LEGS)
    count = rng.randint(2, FACTOR[level - 1])
    return {"count": count, "animals": animals}, count * legs


def _price(rng: random.Random, level: int) -> Made:
    given, product = _multiply(rng, level)
    return {**given, "thing": rng.choice(THINGS)}, product


def _story(make: Make, rng: random.Random, level: int) -> Made:
    given, answer = make(rng, level)
    one, other = rng.sample(NAMES, 2)
    return {**given, "one": one, "other": other, "things": rng.choice(THINGS)}, answer


def _age(rng: random.Random, level: int) -> Made:
    age, years = rng.randint(3, 12), rng.randint(2, (5, 9, 20, 40, 60)[level - 1])
    return {"age": age, "years": years, "one": rng.choice(NAMES)}, age + years


KINDS: tuple[Kind, ...] = kinds(
    "number",
    {
        "multiply": _multiply,
        "divide": _divide,
        "sums": _sum,
        "differences": _difference,
        "missing": _difference,
        "doubles": _double,
        "halves": _half,
        "percent": _percent,
        "squares": _square,
        "remainders": _remainder,
        "after": partial(_neighbour, 1),
        "before": partial(_neighbour, -1),
        "more": _more,
        "round": _rounded,
        "largest": partial(_extreme, max),
        "smallest": partial(_extreme, min),
        "next": _next,
        "countdown": _backwards,
        "doubling": _doubling,
        "letters": _letters,
        "months": _month,
        "units": _units,
        "clock": _later,
        "boxes": _boxes,
        "legs": _legs,
        "prices": _price,
        "altogether": partial(_story, _sum),
        "left": partial(_story, _difference),
        "share": partial(_story, _divide),
        "ages": _age,
    },
)
