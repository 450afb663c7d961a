"""When two answers are the same answer: ``equivalent``, layer by layer from cheap to dear; and groups of such.

Builds on normalisation (canonical strings), numbers, kinds, units and parts (what a string is), and pool (math-verify
in killable processes). The layers, on normalised strings:

1. equal strings are equal; beyond ``MAX_LENGTH`` nothing else counts;
2. plain numbers (integers, decimals, fractions, mixed numbers, powers of ten) are compared exactly, as fractions;
3. dates, times of day, remainders and choices are compared with their own kind;
4. units and names may be left out on one side and must agree on both; they are converted where that is exact;
5. joined figures (10-20, 12/25/2024, 555-1234, 7*5) are compared as they stand and never computed;
6. what can be taken apart is compared part by part: sets, tuples, intervals, unions, matrices, ratios;
7. two expressions are equal if math-verify says so in both directions and their values agree to 20 digits; words are
   never products of variables (to math-verify "east" is "seat").

So the relation is symmetric by construction (each pair is put in one order first), and an answer equals itself.

Decisions where graders differ; what is unsure is different:

- Exact means exact: 0.333 is not 1/3 (0.333... and 0.(3) are), 3.14159 is not pi.
- A sum or product of figures is the problem again and not its answer: 7*5 is not 35; 2^10, 5! and 10/2 are values.
- Percent, degrees and currencies are units that may be left out: 50% = 50 = $50, but 50% is neither 0.5 nor $50. Of
  "$18 per day" and "5% increase" the rest may be left out too.
- A unit, a number base (52_8), ``x =`` or a.m. may be left out on one side; two different ones make different answers.
  This is not transitive (5 cm = 5 = 5 m), like "(B) 12 cm", which is B and 12 cm; ``answers.group`` deals with it.
- Without brackets a list is a set that may hold an element twice: "1, 2" = "2, 1" = {2, 1}, and {5} = 5. Tuples and
  intervals are ordered and differ from sets; (1, 2] is not [1, 2], an inequality is not an interval, a column is not a
  tuple; "x=5, y=6" is (5, 6). ``1,234``, ``1 234`` and ``1.234.567`` are numbers, ``1, 234`` is a list.
- Ratios and clock times are compared figure by figure and are not fractions; "3 to 4" is 3:4 and 3-4; 3:30 PM is 15:30.
- 1st is first and not 1; "4 and 1/2" is 4.5 and the list of 4 and 1/2; 3/4/2024 is no date, 25/12/2024 is one.
- None, an empty answer and the words "no answer" are equivalent to nothing, not even to themselves.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from tacit.answers import kinds, parts
from tacit.answers import pool as answer_pool
from tacit.answers.normalisation import MAX_LENGTH, normalise
from tacit.answers.numbers import joined, number
from tacit.answers.units import Quantity, quantity

TIMEOUT = 3.0
"""CPU seconds that math-verify may take over one pair."""
MAX_ELEMENTS = 64
"""Longer sets, tuples and matrices are compared as strings."""
MAX_DEPTH = 5
_KEPT = 20_000

_DEGREE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\\?[a-zA-Z])(?:\^\\circ|\^\{\\circ\})(?![a-zA-Z])")


def equivalent(a: str | None, b: str | None, timeout: float = TIMEOUT) -> bool:
    """Whether two answers are the same answer. Symmetric; any thread may call it.

    ``timeout`` bounds the CPU seconds that math-verify may spend on the pair; what it cannot decide in that time is
    different. No process is started for numbers, words and equal strings.
    """
    return decide(a, b, timeout)[0]


def decide(a: str | None, b: str | None, timeout: float = TIMEOUT) -> tuple[bool, float]:
    """``equivalent`` and the worker's CPU seconds it cost."""
    if not is_answer(a) or not is_answer(b):
        return False, 0.0
    assert a is not None and b is not None
    budget = _Budget(timeout)
    return _same(normalise(a), normalise(b), budget, 0), timeout - budget.left


def is_answer(answer: str | None) -> bool:
    """Whether there is anything to compare: not None, not blank, not "no answer"."""
    return answer is not None and normalise(answer) not in ("", "no answer")


@dataclass
class _Budget:
    """Worker seconds left for one pair; its parts share them."""

    left: float


def _same(a: str, b: str, budget: _Budget, depth: int) -> bool:
    if a == b or not a or not b:
        return a == b
    if max(len(a), len(b)) > MAX_LENGTH or depth > MAX_DEPTH:
        return False
    if a > b:
        a, b = b, a
    for layer in (_plainly, _in_kind, _measured, _named, _figures, _part_by_part):
        verdict = layer(a, b, budget, depth)
        if verdict is not None:
            return verdict
    return _expressions(a, b, budget)


def _plainly(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """Numbers by value, single letters without case, and a number is not a letter."""
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return x == y
    if len(a) == len(b) == 1 and a.isalpha() and b.isalpha():
        return a.lower() == b.lower()
    if (x is not None and len(b) == 1) or (y is not None and len(a) == 1):
        return False
    return True if f"\\mathbb{{{a}}}" == b or f"\\mathbb{{{b}}}" == a else None


def _in_kind(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """Dates, times of day, remainders and choices are compared with their own kind."""
    for read in (kinds.date, kinds.remainder):
        one, other = read(a), read(b)
        if one or other:
            return one == other
    if kinds.clock(a) or kinds.clock(b):
        return kinds.clock(a) == kinds.clock(b) or kinds.hours(a, b)
    (x, said_x), (y, said_y) = kinds.choice(a), kinds.choice(b)
    if x and y:
        return x == y and (not said_x or not said_y or _same(said_x, said_y, budget, depth + 1))
    return _same(said_x or a, said_y or b, budget, depth + 1) if said_x or said_y else None


def _measured(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """Units must agree, or be convertible, where both answers have one."""
    x, y = quantity(a), quantity(b)
    x = quantity(a, True) if x is None and y is not None and _shared(quantity(a, True), y) else x
    y = quantity(b, True) if y is None and x is not None and _shared(x, quantity(b, True)) else y
    if x is None or y is None:
        known = x or y
        if known is None or known.whole:
            return None if known is None else False
        return _same(x.value if x else a, y.value if y else b, budget, depth + 1)
    if not x.generic() and not y.generic():
        shared = x.shared(y)
        if not shared or (x.extra and y.extra and x.extra != y.extra):
            return False
        if all(mine != theirs for mine, theirs in shared):
            value, other = number(x.value), number(y.value)
            return value is not None and other is not None and any(value * m == other * t for m, t in shared)
    return _same(x.value, y.value, budget, depth + 1)


def _shared(x: Quantity | None, y: Quantity | None) -> bool:
    return x is not None and y is not None and bool(x.shared(y))


def _named(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """A name may be left out on one side; two equations are compared as such."""
    (value_a, name_a), (value_b, name_b) = parts.name(a), parts.name(b)
    if name_a is None and name_b is None:
        return None
    if name_a != name_b and all("=" in text and not parts.top_level(text, ",<>") for text in (a, b)):
        in_variables = any(char.isalpha() for char in value_a + value_b) or None in (name_a, name_b)
        return _expressions(a, b, budget) if in_variables else False
    if name_a and name_b and name_a != name_b:
        return False
    return _same(value_a, value_b, budget, depth + 1)


def _figures(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """Joined figures (10-20, 12/25/2024, 7*5) are never computed; a mixed number in words may also be a list."""
    x, y = joined(a), joined(b)
    if x or y:
        return bool(x & y)
    for text, other in ((a, b), (b, a)):
        whole, _, part = text.partition(" and ")
        if part and number(part) is not None and whole.lstrip("-").isdigit():
            return any(_same(way, other, budget, depth + 1) for way in (f"{whole} {part}", f"{whole}, {part}"))
    return None


def _part_by_part(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    x, y = parts.assignment(a), parts.assignment(b)
    if x and y:
        return x.keys() == y.keys() and all(_same(x[key], y[key], budget, depth + 1) for key in x)
    kind_a, parts_a = parts.take_apart(a)
    kind_b, parts_b = parts.take_apart(b)
    kind, written = (kind_b, b) if x else (kind_a, a)
    if (x or y) and (kind == "()" or (kind == "set" and "{" not in written)):  # x=5, y=6 is (5, 6)
        parts_a = [x[key] for key in sorted(x)] if x else parts_a
        parts_b = [y[key] for key in sorted(y)] if y else parts_b
        return _ordered(parts_a, parts_b, budget, depth)
    if kind_a != kind_b or max(len(parts_a), len(parts_b)) > MAX_ELEMENTS:
        return False
    if kind_a not in ("set", "union"):
        return _ordered(parts_a, parts_b, budget, depth)
    if len(parts_a) == len(parts_b) == 1:
        one, other = parts_a[0], parts_b[0]
        return None if (one, other) == (a, b) else _same(one, other, budget, depth + 1)
    return _unordered(parts_a, parts_b, budget, depth)


def _ordered(a: list[str], b: list[str], budget: _Budget, depth: int) -> bool:
    return len(a) == len(b) and all(_same(x, y, budget, depth + 1) for x, y in zip(a, b, strict=True))


def _unordered(a: list[str], b: list[str], budget: _Budget, depth: int) -> bool:
    """Pair every element with an equal one that is still free; equal strings first, they are the cheap ones."""
    if len(a) != len(b):
        return False
    only_a, only_b = (sorted((Counter(one) - Counter(other)).elements()) for one, other in ((a, b), (b, a)))
    for x in only_a:
        found = next((y for y in only_b if _same(x, y, budget, depth + 1)), None)
        if found is None:
            return False
        only_b.remove(found)
    return True


# ---------------------------------------------------------------- math-verify, cached


class _Decided:
    """What math-verify said about pairs, and which strings and pairs it gave up on within how many seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], bool | float] = OrderedDict()

    def get(self, key: tuple[str, str], limit: float) -> bool | None:
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        if isinstance(found, bool):
            return found
        return False if found is not None and limit <= found else None

    def put(self, key: tuple[str, str], verdict: bool | float) -> None:
        with self._lock:
            self._known[key] = verdict
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]


verdicts = _Decided()
if hasattr(os, "register_at_fork"):  # another thread may hold the lock at the moment of the fork
    os.register_at_fork(after_in_child=verdicts.clear)


def _expressions(a: str, b: str, budget: _Budget) -> bool:
    """Whether math-verify holds two expressions for equal; what it cannot decide within the budget is different."""
    if parts.wordy(a) or parts.wordy(b):
        return False
    limit = budget.left
    if limit <= 0:
        return False
    for key in ((a, b), (a, ""), (b, "")):
        known = verdicts.get(key, limit)
        if known is not None:
            return known
    reply = answer_pool.compare(_latex(a), _latex(b), limit)
    budget.left -= reply.seconds
    if reply.status == "done":
        verdicts.put((a, b), bool(reply.value))
        return bool(reply.value)
    if reply.status == "timeout":  # an expression that cannot even be read is to blame for every pair it is in
        verdicts.put(((a, ""), (b, ""), (a, b))[reply.stage], limit)
    return False


def _latex(text: str) -> str:
    """The text as math-verify reads it right: exact fractions (it would round a decimal, and read 1e-7 as e - 7), and
    degrees as what they are (it would drop the sign)."""
    value = number(text)
    if value is None:
        return _DEGREE.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)
    return str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


_GROUP_LIMITS = 3
"""A grouping may spend this many times the limit of one pair."""


def group(answers: Sequence[str | None], timeout: float = TIMEOUT) -> list[list[int]]:
    """Indices of equivalent answers, largest group first; what is no answer is in no group.

    Answers with the same normalised string are one form. Equivalence of forms is not transitive. So they are merged by
    a rule that does not depend on the order of the answers. From the commonest form to the rarest (then the shorter,
    then the alphabetically first), each joins the first group whose forms *all* equal it, else founds one. Groups of
    equal size are sorted by their founding form in the same way.

    ``timeout`` bounds the worker's CPU seconds for one pair, three times as much bounds the whole call; what is left
    undecided stays apart.
    """
    where: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None and is_answer(answer):
            where.setdefault(normalise(answer), []).append(index)
    left = _GROUP_LIMITS * timeout
    groups: list[list[str]] = []
    for form in sorted(where, key=lambda form: (-len(where[form]), len(form), form)):
        for members in groups:
            same = True
            for member in members:
                same, seconds = decide(form, member, min(timeout, left))
                left -= seconds
                if not same:
                    break
            if same:
                members.append(form)
                break
        else:
            groups.append([form])
    indices = [sorted(index for form in members for index in where[form]) for members in groups]
    order = sorted(range(len(groups)), key=lambda g: (-len(indices[g]), len(groups[g][0]), groups[g][0]))
    return [indices[g] for g in order]
