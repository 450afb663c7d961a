"""Families whose answer is a number: arithmetic, comparisons, sequences, dates and units, and short stories.

Builds on kind and words. A level sets the size of the numbers, or how many there are.
"""

from __future__ import annotations

import random
from functools import partial

from tacit.tasks.families.kind import Kind, Made
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


def _extreme(choose: str, rng: random.Random, level: int) -> Made:
    count, most = ((2, 9), (3, 9), (3, 99), (4, 99), (5, 999))[level - 1]
    numbers = rng.sample(range(1, most + 1), count)
    return {"numbers": ", ".join(map(str, numbers))}, max(numbers) if choose == "largest" else min(numbers)


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


def _people(rng: random.Random) -> dict[str, str]:
    one, other = rng.sample(NAMES, 2)
    return {"one": one, "other": other, "things": rng.choice(THINGS)}


def _story(operation: str, rng: random.Random, level: int) -> Made:
    make = {"sum": _sum, "difference": _difference, "divide": _divide}[operation]
    given, answer = make(rng, level)
    return {**given, **_people(rng)}, answer


def _age(rng: random.Random, level: int) -> Made:
    age, years = rng.randint(3, 12), rng.randint(2, (5, 9, 20, 40, 60)[level - 1])
    return {"age": age, "years": years, "one": rng.choice(NAMES)}, age + years


_kind = partial(Kind, task="number")
KINDS: tuple[Kind, ...] = tuple(
    _kind(name, make=make, phrasings=phrasings)
    for name, make, phrasings in (
        ("multiply", _multiply, ("What is {a} times {b}?", "What is {a} multiplied by {b}?", "What is {a} x {b}?")),
        ("divide", _divide, ("What is {a} divided by {b}?", "Divide {a} by {b}.", "How often does {b} go into {a}?")),
        ("sums", _sum, ("What is {a} plus {b}?", "What is the sum of {a} and {b}?", "Add {a} and {b}.")),
        ("differences", _difference, ("What is {a} minus {b}?", "Subtract {b} from {a}.", "Take {b} away from {a}.")),
        (
            "missing",
            _difference,
            (
                "Which number do I add to {b} to get {a}?",
                "{b} plus what is {a}?",
                "How much is missing from {b} to {a}?",
            ),
        ),
        ("doubles", _double, ("What is double {a}?", "What is twice {a}?", "Double the number {a}.")),
        ("halves", _half, ("What is half of {a}?", "Halve the number {a}.", "What is one half of {a}?")),
        (
            "percent",
            _percent,
            ("What is {a} percent of {b}?", "What is {a}% of {b}?", "How much is {a} percent of {b}?"),
        ),
        ("squares", _square, ("What is {a} squared?", "What is the square of {a}?", "What is {a} times itself?")),
        (
            "remainders",
            _remainder,
            ("What is the remainder when {a} is divided by {b}?", "What is left over when {a} is divided by {b}?"),
        ),
        ("after", partial(_neighbour, 1), ("Which number comes after {a}?", "What comes right after {a}?")),
        ("before", partial(_neighbour, -1), ("Which number comes before {a}?", "What comes right before {a}?")),
        ("more", _more, ("What is {b} more than {a}?", "Which number is {b} greater than {a}?")),
        ("round", _rounded, ("Round {a} to the nearest {to}.", "What is {a} rounded to the nearest {to}?")),
        (
            "largest",
            partial(_extreme, "largest"),
            (
                "Which number is the largest: {numbers}?",
                "What is the largest of {numbers}?",
                "Find the maximum of {numbers}.",
            ),
        ),
        (
            "smallest",
            partial(_extreme, "smallest"),
            (
                "Which number is the smallest: {numbers}?",
                "What is the smallest of {numbers}?",
                "Find the minimum of {numbers}.",
            ),
        ),
        ("next", _next, ("What comes next: {numbers}?", "Which number follows {numbers}?", "Continue: {numbers}, ...")),
        (
            "countdown",
            _backwards,
            ("We count down: {numbers}. What is next?", "Count down from {numbers}. Next number?"),
        ),
        (
            "doubling",
            _doubling,
            ("Each number is doubled: {numbers}. What is next?", "Keep doubling: {numbers}. Next?"),
        ),
        ("letters", _letters, ('How many letters are in the word "{word}"?', 'How long is the word "{word}"?')),
        ("months", _month, ("What number is the month {month}?", "In a date, which number has the month {month}?")),
        ("units", _units, ("How many {small} are in {count} {large}?", "{count} {large} are how many {small}?")),
        (
            "clock",
            _later,
            ("It is {at} o'clock. What hour is it {hours} later?", "Which hour is {hours} after {at} o'clock?"),
        ),
        (
            "boxes",
            _boxes,
            (
                "There are {a} {boxes} with {b} {things} each. How many {things} are there?",
                "{b} {things} are in each of {a} {boxes}. How many {things} is that?",
            ),
        ),
        ("legs", _legs, ("How many legs do {count} {animals} have?", "{count} {animals} have how many legs together?")),
        (
            "prices",
            _price,
            (
                "One of the {thing} costs {a} dollars. How many dollars do {b} cost?",
                "You buy {b} {thing} at {a} dollars each. How many dollars do you pay?",
            ),
        ),
        (
            "altogether",
            partial(_story, "sum"),
            (
                "{one} has {a} {things} and {other} has {b}. How many {things} do they have together?",
                "{one} has {a} {things} and gets {b} more. How many {things} does {one} have now?",
            ),
        ),
        (
            "left",
            partial(_story, "difference"),
            (
                "{one} has {a} {things} and gives {b} to {other}. How many {things} are left?",
                "{one} had {a} {things} and lost {b}. How many {things} does {one} still have?",
            ),
        ),
        (
            "share",
            partial(_story, "divide"),
            (
                "{a} {things} are shared equally by {b} children. How many {things} does each child get?",
                "{one} puts {a} {things} into {b} equal piles. How many {things} are in each pile?",
            ),
        ),
        (
            "ages",
            _age,
            (
                "{one} is {age} years old. How old is {one} in {years} years?",
                "{one} is {age}. What age in {years} years?",
            ),
        ),
    )
)
