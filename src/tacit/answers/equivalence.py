"""When two answers are the same answer: ``equivalent``, layer by layer from cheap to dear.

Builds on normalisation (canonical strings) and pool (math-verify in killable processes). The layers, on
normalised strings:

1. equal strings are equal; beyond ``MAX_LENGTH`` nothing else counts;
2. plain numbers (integers, decimals, fractions, mixed numbers) are compared exactly, as fractions;
3. words are compared as words, never as products of variables (to math-verify "east" is "seat");
4. what can be taken apart is compared part by part: units, ``x =``, sets, tuples, intervals, unions, matrices;
5. two expressions are equal if math-verify says so in both directions and their values agree to 20 digits.

So the relation is symmetric by construction (each pair is put in one order first), and an answer equals itself.

Decisions where graders differ:

- Exact means exact: 0.333 is not 1/3, 3.14159 is not pi.
- A percent sign and a degree sign are units that may be left out: 50% = 50, and 50% is not 0.5.
- A unit, a number base (52_8) or ``x =`` may be left out on one side; two different ones make different answers. This
  is the one place that is not transitive (5 cm = 5 = 5 m); ``answers.group`` deals with it.
- Without brackets a list is a set: "1, 2" = "2, 1" = {2, 1}, and {5} = 5. Tuples and intervals are ordered and differ
  from sets; (1, 2] is not [1, 2], an inequality is not an interval, a column is not a tuple. ``1,234`` is a number.
- Ratios and clock times (3:4) are compared figure by figure and are not fractions.
- None, an empty answer and the words "no answer" are equivalent to nothing, not even to themselves.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from tacit.answers import pool as answer_pool
from tacit.answers.normalisation import MAX_LENGTH, normalise

TIMEOUT = 3.0
"""CPU seconds that math-verify may take over one pair."""
MAX_ELEMENTS = 64
"""Longer sets, tuples and matrices are compared as strings."""
MAX_DEPTH = 4
_KEPT = 20_000

_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"([+-]?{_DECIMAL}(?:[eE][+-]?[0-9]{{1,3}})?)")
_FRACTION = re.compile(
    rf"([+-]?)(?:([0-9]+)(?: ?(?=\\frac)| (?=[0-9])))?"
    rf"(?:\\frac\{{([+-]?{_DECIMAL})\}}\{{([+-]?{_DECIMAL})\}}|({_DECIMAL})/({_DECIMAL}))"
)
_NAMED = re.compile(
    r"(\\?[a-zA-Z]+(?:_(?:[0-9a-zA-Z]|\{[0-9a-zA-Z]+\}))?(?:\([a-zA-Z](?:, [a-zA-Z])*\))?)"
    r"(=|\\in(?![a-zA-Z]) ?)(?!=)(.+)"
)
_BASE = re.compile(r"([0-9][0-9A-F]*)_\{?([0-9]{1,2})\}?")
_QUANTITY = re.compile(
    r"(.*(?:[0-9}\)]|\\pi(?= )))( ?)((?:square |cubic |sq )?[a-zA-Z]+(?: [a-zA-Z]+)*(?:/[a-zA-Z]+)?)(?:\^\{?([23])\}?)?"
)
_DEGREE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\\?[a-zA-Z])(?:\^\\circ|\^\{\\circ\})(?![a-zA-Z])")
_RATIO = re.compile(r"[0-9.]+(?::[0-9.]+)+")
_LETTER_RUN = re.compile(r"\\?[a-zA-Z]+")
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}")

# Words that are mathematics; anything else of two letters or more between spaces is language.
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt max min gcd lcm mod pi inf det".split()
)
_SCALES = frozenset(("hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "third", "to", "of"))
_UNITS = {
    alias: unit
    for unit, aliases in {
        "cm": "centimeter centimetre", "mm": "millimeter millimetre", "m": "meter metre", "km": "kilometer kilometre",
        "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "kg": "kilogram", "g": "gram", "lb": "pound",
        "oz": "ounce", "s": "second sec", "min": "minute", "h": "hour hr", "l": "liter litre", "ml": "milliliter",
        "mph": "", "ft/s": "", "m/s": "", "km/h": "kph", "$": "dollar usd", "cent": "", "": "unit", "rad": "radian",
        "am": "", "pm": "", "day": "",
    }.items()
    for alias in (unit, *aliases.split())
}  # fmt: skip


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
    for layer in (_plainly, _without_marks, _part_by_part):
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
    return False if (x is not None and len(b) == 1) or (y is not None and len(a) == 1) else None


def _without_marks(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    """Units, bases and names must agree where both answers have one."""
    for split in (_unit, _name):
        (value_a, mark_a), (value_b, mark_b) = split(a), split(b)
        if mark_a and mark_b and mark_a != mark_b:
            return False
        if mark_a is not None or mark_b is not None:
            return _same(value_a, value_b, budget, depth + 1)
    return None


def _part_by_part(a: str, b: str, budget: _Budget, depth: int) -> bool | None:
    kind_a, parts_a = _take_apart(a)
    kind_b, parts_b = _take_apart(b)
    if kind_a != kind_b or max(len(parts_a), len(parts_b)) > MAX_ELEMENTS:
        return False
    if kind_a not in ("set", "union"):
        return _ordered(parts_a, parts_b, budget, depth)
    if len(parts_a) == len(parts_b) == 1:
        x, y = parts_a[0], parts_b[0]
        return None if (x, y) == (a, b) else _same(x, y, budget, depth + 1)
    return _unordered(parts_a, parts_b, budget, depth)


def _ordered(a: list[str], b: list[str], budget: _Budget, depth: int) -> bool:
    return len(a) == len(b) and all(_same(x, y, budget, depth + 1) for x, y in zip(a, b, strict=True))


def _unordered(a: list[str], b: list[str], budget: _Budget, depth: int) -> bool:
    """Pair every element with an equal one that is still free; equal strings first, they are the cheap ones."""
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if len(only_a) != len(only_b):
        return False
    for x in only_a:
        found = next((y for y in only_b if _same(x, y, budget, depth + 1)), None)
        if found is None:
            return False
        only_b.remove(found)
    return True


@lru_cache(maxsize=4096)
def number(text: str) -> Fraction | None:
    """The exact value of a plain number (integer, decimal, e-notation, fraction, mixed number), or None."""
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    sign, whole, top, bottom, slash_top, slash_bottom = match.groups()
    above, below = Fraction(top or slash_top), Fraction(bottom or slash_bottom)
    if below == 0 or (whole and (above < 0 or below < 0)):
        return None
    value = Fraction(whole or 0) + above / below
    return -value if sign == "-" else value


def _unit(text: str) -> tuple[str, str | None]:
    """Value and unit ("" for "units"), (text, None) where there is no unit. A base is a unit too."""
    base = _BASE.fullmatch(text)
    if base is not None:
        return base[1], f"base {base[2]}"
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return text, None
    value, space, words, power = match.groups()
    words = words.lower()
    for prefix, its_power in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if words.startswith(prefix):
            words, power = words[len(prefix) :], its_power
    parts = re.split(r"[ /]", words)
    if any(part in _SCALES or part in _FUNCTIONS for part in parts) and words not in _UNITS:
        return text, None
    known = _UNITS.get(words, _UNITS.get(words.removesuffix("s")))
    # One letter is a variable (5 m is 5 times m), and unknown words need a space and some length (2xy is a product).
    if len(words) == 1 or (known is None and not (space and max(map(len, parts)) >= 4)):
        return text, None
    if known is None:
        known = words.removesuffix("s")
    return value, f"{known}^{power}" if power and known else known


def _name(text: str) -> tuple[str, str | None]:
    """Value and name of ``x = 5``, ``f(x) = ...`` and ``x \\in ...``; (text, None) of anything else."""
    match = _NAMED.fullmatch(text)
    if match is None or _top_level(match[3], "=<>"):
        return text, None
    if _top_level(match[3], ",") and "=" in match[3]:
        return text, None  # x=1, y=2
    return match[3].strip(), match[1]


def _top_level(text: str, wanted: str) -> list[int]:
    """Positions of the characters in ``wanted`` outside all brackets."""
    depth, found = 0, []
    for position, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and char in wanted:
            found.append(position)
    return found


def _split(text: str, separator: str) -> list[str]:
    parts, start = [], 0
    for position in _top_level(text, separator):
        parts.append(text[start:position].strip())
        start = position + 1
    return [*parts, text[start:].strip()]


@lru_cache(maxsize=4096)
def _take_apart(text: str) -> tuple[str, list[str]]:
    """Kind and elements. Whatever is no tuple, interval, union or matrix is a set, of one element if need be."""
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None and "\\begin" not in matrix[2]:
        rows = [_split(row, "&") for row in re.split(r"\\\\", matrix[2].strip()) if row.strip()]
        return f"matrix {[len(row) for row in rows]}", [part for row in rows for part in row]
    if _RATIO.fullmatch(text):
        return "ratio", text.split(":")
    if "\\cup" in text:
        pieces = re.split(r"\\cup(?![a-zA-Z]) ?", text)
        if len(pieces) > 1 and all(_enclosed(piece) for piece in pieces):
            return "union", pieces
    if text[0] in "([" and text[-1] in ")]" and _enclosed(text):
        parts = _split(text[1:-1], ",")
        if len(parts) > 1:
            return text[0] + text[-1], parts
    inside = _inside_braces(text)
    if inside != text and re.search(r"\\mid(?![a-zA-Z])|[:|]", inside):
        return "set", [text]  # set-builder notation
    return "set", [form for part in _split(inside, ",") for form in _both_signs(part)] if inside else ["\\emptyset"]


def _inside_braces(text: str) -> str:
    if text.startswith("\\{") and text.endswith("\\}") and _enclosed(text[1:-2] + "}"):
        return text[2:-2].strip()
    return text[1:-1].strip() if text[0] == "{" and text[-1] == "}" and _enclosed(text) else text


def _enclosed(text: str) -> bool:
    """Whether the first bracket closes at the very end (kinds of brackets may differ: intervals)."""
    depth = 0
    for position, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return position == len(text) - 1 and position > 0
    return False


def _both_signs(text: str) -> list[str]:
    """``1 \\pm 2`` is two elements."""
    if len(re.findall(r"\\pm(?![a-zA-Z])", text)) != 1:
        return [text]
    return [normalise(re.sub(r"\\pm(?![a-zA-Z]) ?", sign, text)) for sign in "+-"]


def wordy(text: str) -> bool:
    """Whether the text is language and not mathematics: letters only, or some word between spaces."""
    letters = text.replace(" ", "").replace("'", "").replace("-", "").replace(".", "")
    if letters.isalpha() and len(letters) > 1 and text not in _FUNCTIONS:
        return True
    for match in _LETTER_RUN.finditer(text):
        word, before, after = match[0], text[: match.start()][-1:], text[match.end() :][:1]
        alone = before in ("", " ") and after in ("", " ")
        if len(word) > 2 and not word.startswith("\\") and word.lower() not in _FUNCTIONS and alone:
            return True
    return False


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
    if wordy(a) or wordy(b):
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
