"""The testbed's problem families: texts, gold answers, and the one way of working that solves each.

Builds on errors. A *family* is a kind of problem. Each is solved by one **style** of work (step, split, list, reduce)
in one **temper** (carefully, quickly); any other style gives a mostly wrong answer, and the other temper makes slips.
The model must choose both words before it starts, so what a memory can learn is *which way to work here*.

The families are made to interfere with each other:

- the right style of one family is the habitual bad style of another (add and last, total and most, boxes and loose);
- some families need the quick temper: there the careful way checks its work and talks itself out of the right result;
- stories about the same people and things differ in one clause and need different skills (total, most, loose, boxes);
- formal and story families share a skill (add and total, mul and boxes, max and most, last and loose);
- in two families (prec, before) the habit is a misconception, consistent and wrong, so the majority errs with it.

Set A is formal, with numbers of 50 to 99; set B is stories, with numbers of 11 to 49. A quarter of all problem texts
is held out from the training corpus, and the stream is drawn from that quarter alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from tacit.errors import ConfigError

STYLES = {
    "step": "step by step",
    "split": "split in parts",
    "list": "list them all",
    "reduce": "reduce it first",
}
TEMPERS = {"careful": "carefully", "quick": "quickly"}
NAMES = ("tom", "mary", "sam", "ann")
THINGS = ("apples", "coins", "books", "eggs")

Numbers = tuple[int, ...]


class Item(NamedTuple):
    """One problem of the stream. ``id`` is set/family/seed/index, and the problem is a function of it."""

    id: str
    text: str
    gold: str
    family: str


class Look(Protocol):
    """One small look-up of a body: returns ``value``, or something near it when the worker slips.

    ``others`` are the values a slip can give instead; without them it is another last digit.
    """

    def __call__(self, value: int, others: Sequence[int] = ()) -> int: ...


# Both the text of each step and the answer are made from looked-up values, so a slip spreads to all that follows.
Work = Callable[[Numbers, Look], tuple[list[str], int]]
Make = Callable[[random.Random], tuple[str, Numbers]]


@dataclass(frozen=True)
class Family:
    """A kind of problem.

    Attributes:
        name, set: "add", "A".
        style, temper: the way of working that solves it.
        habit: the bad style the base model often falls into here.
        make: draws a problem: its text and its numbers.
        work: the right body for these numbers.
        shares: how often the corpus uses the right style and the habit; the rest is split between the other two.
        steady: how often the corpus uses the right temper.
        misconception: the body of the habit where it is a consistent wrong method; None where it is mere scatter.
        practice: how often the corpus has this family, relative to the others; harder look-ups need more.
    """

    name: str
    set: str
    style: str
    temper: str
    habit: str
    make: Make = field(repr=False)
    work: Work = field(repr=False)
    shares: tuple[float, float]
    steady: float
    misconception: Work | None = field(default=None, repr=False)
    practice: float = 1.0


def exact(value: int, others: Sequence[int] = ()) -> int:
    """The look-up that never slips."""
    return value


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


# --- texts -----------------------------------------------------------------------------------------------------------


def _pair(rng: random.Random) -> Numbers:
    return rng.randint(50, 99), rng.randint(50, 99)


def _make_add(rng: random.Random) -> tuple[str, Numbers]:
    a, b = _pair(rng)
    return f"compute {a} + {b}", (a, b)


def _make_last(rng: random.Random) -> tuple[str, Numbers]:
    a, b = _pair(rng)
    return f"last digit of {a} + {b}", (a, b)


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


_SURE, _UNSURE, _WRONG = (0.64, 0.20), (0.45, 0.53), (0.32, 0.56)
FAMILIES: tuple[Family, ...] = (
    Family("add", "A", "step", "careful", "reduce", _make_add, add, _SURE, 0.9),
    Family("last", "A", "reduce", "quick", "step", _make_last, last_digit, _UNSURE, 0.85),
    Family("mul", "A", "split", "careful", "step", _make_mul, multiply, _SURE, 0.9, practice=2),
    Family("max", "A", "list", "quick", "split", _make_max, largest, _UNSURE, 0.85),
    Family("count", "A", "list", "careful", "reduce", _make_count, count, _SURE, 0.9),
    Family("prec", "A", "split", "careful", "step", _make_prec, product_first, _WRONG, 0.9, left_to_right),
    Family("total", "B", "step", "careful", "list", partial(_two_owners, "in all"), add, _UNSURE, 0.9),
    Family("most", "B", "list", "quick", "step", partial(_two_owners, "at most"), largest, _SURE, 0.85),
    Family("more", "B", "step", "quick", "reduce", partial(_two_owners, "more"), subtract, _SURE, 0.85),
    Family("loose", "B", "reduce", "quick", "split", partial(_two_owners, "loose"), last_digit, _UNSURE, 0.85),
    Family("boxes", "B", "split", "careful", "reduce", _make_boxes, multiply, _UNSURE, 0.9, practice=1.5),
    Family("before", "B", "reduce", "careful", "step", _make_before, subtract, _WRONG, 0.9, add),
)
BY_NAME = {family.name: family for family in FAMILIES}
USED_UP = 500
"""So many draws in a row without a new text mean that a family has no more."""


def members(which: str) -> tuple[Family, ...]:
    """The families of set "A", "B" or both ("AB")."""
    if which not in ("A", "B", "AB"):
        raise ConfigError(f'The testbed has the sets "A", "B" and "AB"; there is no set {which!r}.')
    return tuple(family for family in FAMILIES if family.set in which)


def held_out(text: str) -> bool:
    """Whether this problem text is kept out of the training corpus (a quarter of all, by checksum of the text)."""
    return zlib.crc32(text.encode()) % 4 == 0


def draw(family: Family, rng: random.Random, unseen: bool) -> tuple[str, Numbers, int]:
    """A problem of this family, from the held-out quarter or from the rest: text, numbers, gold answer."""
    while True:
        text, numbers = family.make(rng)
        if held_out(text) == unseen:
            return text, numbers, family.work(numbers, exact)[1]


def item(name: str, seed: int, index: int) -> Item:
    """The problem with this family, seed and index: always the same one."""
    family = BY_NAME[name]
    label = f"{family.set}/{name}/{seed}/{index}"
    text, _, gold = draw(family, random.Random(label), unseen=True)
    return Item(label, text, str(gold), name)


def problems(which: str = "AB", seed: int = 0) -> Iterator[Item]:
    """An endless stream of fresh problems of set "A", "B" or "AB", families interleaved at random.

    A problem depends on its own id alone, so "A" and "AB" of one seed hand out the same problems in another order.
    Ids never repeat, and no text comes twice before its family's are used up (the smallest has about fifty).
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
