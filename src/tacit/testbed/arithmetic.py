"""Sets A and B of the testbed: arithmetic, formal and in stories.

Builds on family. The families are made to interfere with each other:

- the right style of one family is the habitual bad style of another (add and last, total and most, boxes and loose);
- some families need the quick temper: there the careful way checks its work and talks itself out of the right result;
- stories about the same people and things differ in one clause and need different skills (total, most, loose, boxes);
- formal and story families share a skill (add and total, mul and boxes, max and most, last and loose);
- in two families (prec, before) the habit is a misconception, consistent and wrong, so the majority errs with it.

Set A is formal, with numbers of 50 to 99; set B is stories, with numbers of 11 to 49.
"""

from __future__ import annotations

import random
from functools import partial

from tacit.testbed.family import LUCK, SURE, UNSURE, WRONG, Family, Look

NAMES = ("tom", "mary", "sam", "ann")
THINGS = ("apples", "coins", "books", "eggs")

Numbers = tuple[int, ...]


# --- bodies: every step is a look-up of a digit or two ---------------------------------------------------------------


def add(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """Digit by digit with a carry."""
    a, b = numbers[:2]
    units = look(a % 10 + b % 10)
    tens = look(a // 10 + b // 10 + units // 10)
    steps = [f"{a % 10} + {b % 10} = {units}", f"{a // 10} + {b // 10} + {units // 10} = {tens}"]
    return steps, 10 * tens + units % 10


def subtract(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """Digit by digit; a borrow is written as ten more above and one less to the left."""
    a, b = numbers[:2]
    borrow = int(a % 10 < b % 10)
    top = a % 10 + 10 * borrow
    units = look(top - b % 10) % 10
    tens = look(a // 10 - b // 10 - borrow) % 10
    steps = [f"{top} - {b % 10} = {units}", f"{a // 10} - {b // 10} - {borrow} = {tens}"]
    return steps, 10 * tens + units


def last_digit(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """Only the last digits matter."""
    a, b = numbers[:2]
    units = look(a % 10 + b % 10)
    return [f"{a % 10} + {b % 10} = {units}"], units % 10


def multiply(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """A two-digit number times a digit, by parts with a carry."""
    a, b = numbers[:2]
    units = look(a % 10 * b)
    tens = look(a // 10 * b + units // 10)
    steps = [f"{a % 10} * {b} = {units}", f"{a // 10} * {b} + {units // 10} = {tens}"]
    return steps, 10 * tens + units % 10


def largest(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """A running maximum."""
    best, steps = numbers[0], []
    for other in numbers[1:]:
        winner = look(max(best, other), [min(best, other)])
        steps.append(f"{best} or {other} = {winner}")
        best = winner
    return steps, best


def count(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """A running count of the numbers over the first one."""
    seen, steps = 0, []
    for number in numbers[1:]:
        seen = look(seen + int(number > numbers[0]))
        steps.append(f"{number}: {seen}")
    return steps, seen


def product_first(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """a + b * c: the product, then the sum by digits."""
    a, b, c = numbers
    product = look(b * c)
    units = look(product % 10 + a % 10)
    tens = look(product // 10 + a // 10 + units // 10)
    steps = [
        f"{b} * {c} = {product}",
        f"{a % 10} + {product % 10} = {units}",
        f"{a // 10} + {product // 10} + {units // 10} = {tens}",
    ]
    return steps, 10 * tens + units % 10


def left_to_right(numbers: Numbers, look: Look) -> tuple[list[str], int]:
    """a + b * c as if it were (a + b) * c: the misconception of prec."""
    a, b, c = numbers
    units = look(a % 10 + b)
    low = look(units * c)
    high = look(a // 10 * c + low // 10)
    steps = [f"{a % 10} + {b} = {units}", f"{units} * {c} = {low}", f"{a // 10} * {c} + {low // 10} = {high}"]
    return steps, 10 * high + low % 10


def off_style(style: str, numbers: Numbers, gold: int, rng: random.Random) -> tuple[list[str], int]:
    """A step in a style that does not fit, and an answer that has little to do with it."""
    digits = [int(digit) for number in numbers for digit in str(number)]
    x, y = sorted(rng.sample(digits, 2), reverse=True)
    step = {
        "step": f"{x} + {y} = {x + y}",
        "split": f"{x} * {y} = {x * y}",
        "list": ", ".join(str(number) for number in numbers),
        "reduce": f"{x} - {y} = {x - y}",
    }[style]
    # Scattered, so that wrong answers seldom agree with each other.
    answer = gold if rng.random() < LUCK else rng.randint(0, max(29, 2 * gold))
    return [step], answer


# --- texts -----------------------------------------------------------------------------------------------------------


def _make_sum(question: str, rng: random.Random) -> tuple[str, Numbers]:
    a, b = rng.randint(50, 99), rng.randint(50, 99)
    return f"{question} {a} + {b}", (a, b)


def _make_mul(rng: random.Random) -> tuple[str, Numbers]:
    a, b = rng.randint(50, 99), rng.randint(2, 5)
    return f"compute {a} * {b}", (a, b)


def _make_max(rng: random.Random) -> tuple[str, Numbers]:
    tens = rng.sample(range(5, 10), 3)
    numbers = tuple(10 * ten + rng.randint(0, 9) for ten in tens)
    return f"largest of {numbers[0]}, {numbers[1]}, {numbers[2]}", numbers


def _make_count(rng: random.Random) -> tuple[str, Numbers]:
    bound = 10 * rng.randint(6, 9)
    numbers = tuple(10 * ten + rng.randint(1, 9) for ten in rng.sample(range(5, 10), 4))
    return f"count over {bound} in {', '.join(map(str, numbers))}", (bound, *numbers)


def _make_prec(rng: random.Random) -> tuple[str, Numbers]:
    # No carry out of the last digit, so that the misconception is as short as the right way.
    unit = rng.randint(0, 7)
    b = rng.randint(2, 9 - unit)
    c = rng.randint(2, 5)
    a = 10 * rng.randint(5, 9) + unit
    return f"compute {a} + {b} * {c}", (a, b, c)


def _people(rng: random.Random) -> tuple[str, str, str]:
    first, second = rng.sample(NAMES, 2)
    return first, second, rng.choice(THINGS)


def _two_owners(question: str, rng: random.Random) -> tuple[str, Numbers]:
    """The opening that total, most, more and loose share word for word."""
    tens = rng.sample(range(1, 5), 2)
    a, b = (10 * ten + rng.randint(1, 9) for ten in tens)
    if question == "more":
        a, b = max(a, b), min(a, b)
    first, second, things = _people(rng)
    return f"{first} has {a} {things} and {second} has {b} {things}. how many {question}?", (a, b)


def _make_boxes(rng: random.Random) -> tuple[str, Numbers]:
    first, _, things = _people(rng)
    a, b = rng.randint(11, 49), rng.randint(2, 5)
    return f"{first} has {b} boxes of {a} {things}. how many in all?", (a, b)


def _make_before(rng: random.Random) -> tuple[str, Numbers]:
    first, _, things = _people(rng)
    found = rng.randint(11, 29)
    now = found + rng.randint(11, 20)
    return f"{first} finds {found} {things} and now has {now}. how many before?", (now, found)


_family = partial(Family, stray=off_style)
FAMILIES: tuple[Family, ...] = (
    _family("add", "A", "step", "careful", "reduce", partial(_make_sum, "compute"), add, SURE, 0.9),
    _family("last", "A", "reduce", "quick", "step", partial(_make_sum, "last digit of"), last_digit, UNSURE, 0.85),
    _family("mul", "A", "split", "careful", "step", _make_mul, multiply, SURE, 0.9, practice=2),
    _family("max", "A", "list", "quick", "split", _make_max, largest, UNSURE, 0.85),
    _family("count", "A", "list", "careful", "reduce", _make_count, count, SURE, 0.9),
    _family("prec", "A", "split", "careful", "step", _make_prec, product_first, WRONG, 0.9, left_to_right),
    _family("total", "B", "step", "careful", "list", partial(_two_owners, "in all"), add, UNSURE, 0.9),
    _family("most", "B", "list", "quick", "step", partial(_two_owners, "at most"), largest, SURE, 0.85),
    _family("more", "B", "step", "quick", "reduce", partial(_two_owners, "more"), subtract, SURE, 0.85),
    _family("loose", "B", "reduce", "quick", "split", partial(_two_owners, "loose"), last_digit, UNSURE, 0.85),
    _family("boxes", "B", "split", "careful", "reduce", _make_boxes, multiply, UNSURE, 0.9, practice=1.5),
    _family("before", "B", "reduce", "careful", "step", _make_before, subtract, WRONG, 0.9, add),
)
