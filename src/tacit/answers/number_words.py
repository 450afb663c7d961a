"""Numbers in English words as figures: ``in_figures``. "forty-two apples" is "42 apples", "5 million" is "5000000".

Builds on nothing (word2number, the library for it, reads "two and three" as 5 and has had no release since 2021).
What is not a number for certain stays as it is: "one two", "twenty eleven", "one-sided", "one of the many others".
"""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_SCALES = {"thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12}
_MULTIPLES = {**_SCALES, "hundred": 100, "dozen": 12, "万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8,
    "억": 10**8}  # fmt: skip
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20, "hundredth": 100,
    "thousandth": 1000}  # fmt: skip
_ODD_ORDINALS = {"first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight",
    "ninth": "nine", "twelfth": "twelve"}  # fmt: skip
_STARTS = frozenset([*_VALUES, *_ODD_ORDINALS, "a", "an", "half", "minus", "negative"])

_WORD = re.compile(r"[a-zA-Z]+")
_WORDS = re.compile(r"[a-zA-Z]+(?:[ -][a-zA-Z]+){0,23}")
_MULTIPLE = re.compile(
    r"(?<![\w./^,-])(-?[0-9]{1,15}(?:,[0-9]{3}){0,5}(?:\.[0-9]{1,15})?) ?"
    rf"(?:({'|'.join(word for word in _MULTIPLES if word.isascii())})s?(?![a-z])|([万萬만亿億억]))",
    re.IGNORECASE,
)


def in_figures(text: str) -> str:
    """The text with its numbers in figures: those that it, or an element of a list, begins with, and multiples."""
    pieces = re.split(r"(, )", text)
    return "".join(_MULTIPLE.sub(_multiple, _beginning(piece)) for piece in pieces)


def ordinal(value: int) -> str:
    """1st, 2nd, 11th."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{value}{ends.get(value % 10, 'th') if value % 100 not in (11, 12, 13) else 'th'}"


def _multiple(match: re.Match[str]) -> str:
    value = Fraction(match[1].replace(",", "")) * _MULTIPLES[(match[2] or match[3]).lower()]
    after = match.string[match.end() :][:1]
    return match[0] if value.denominator != 1 else str(value) + (" " if after.isalpha() and match[3] else "")


def _beginning(piece: str) -> str:
    found = _WORDS.match(piece)
    if found is None or piece.count(" ") > 24:
        return piece
    spans = [match.span() for match in _WORD.finditer(found[0])]
    words = [piece[start:end].lower() for start, end in spans]
    if words[0] not in _STARTS and words[0].removesuffix("th").replace("tie", "ty") not in _VALUES:
        return piece
    for count in range(len(words), 0, -1):
        rest = piece[spans[count - 1][1] :]
        if rest[:1] not in ("", " ", "%", ")", "\\") or len(rest.split()) > 4 or _goes_on(words[count:]):
            continue
        place = _ordinal(words[:count]) if words[count:][:1] != ["of"] else None
        value = _value(words[:count], alone=not rest) if place is None else ordinal(place)
        if value is not None:
            return f"{value}{rest}"
    return piece


def _goes_on(words: list[str]) -> bool:
    """Whether another number follows, so that nobody knows what the words before it are worth."""
    return bool(words) and (words[0] in _VALUES or words[0] in _MULTIPLES or words[0] == "point")


def _value(words: list[str], *, alone: bool) -> Fraction | None:
    """What the words are worth together; ``alone`` if nothing follows them."""
    if words[0] in ("minus", "negative"):
        value = _value(words[1:], alone=alone) if len(words) > 1 else None
        return None if value is None else -value
    if words[0] == "half" and (words[1:] in (["a"], ["an"]) if len(words) > 1 else alone):
        return Fraction(1, 2)
    for place, word in enumerate(words):
        if word == "point":
            whole, digits = _cardinal(words[:place]), [_VALUES.get(word, 10) for word in words[place + 1 :]]
            good = whole is not None and digits and max(digits) < 10
            return Fraction(f"{whole}.{''.join(map(str, digits))}") if good else None
        if word == "and":
            whole, part = _cardinal(words[:place]), _part(words[place + 1 :] or ["and"])
            if whole is not None and part is not None and part < 1:
                return whole + part
    part, whole = _part(words), _cardinal(words)
    return part if whole is None else Fraction(whole)


def _part(words: list[str]) -> Fraction | None:
    """``a half``, ``two thirds``: one of them is in the singular, more are in the plural."""
    below = _PARTS.get(words[-1].removesuffix("s"))
    above = 1 if words[:-1] in (["a"], ["an"]) else _cardinal(words[:-1])
    if below is None or above is None or (above == 1) == words[-1].endswith("s"):
        return None
    return Fraction(above, below)


def _ordinal(words: list[str]) -> int | None:
    last = words[-1]
    stem = _ODD_ORDINALS.get(last) or (last.removesuffix("ieth") + "y" if last.endswith("ieth") else None)
    stem = stem or (last.removesuffix("th") if last.endswith("th") else None)
    if stem is None or _part(words) is not None:
        return None
    return _cardinal([*words[:-1], stem])


def _cardinal(words: list[str]) -> int | None:
    """A whole number; None if the words are not one, in order and in full."""
    if words[:1] in (["a"], ["an"]) and words[1:2] and words[1] in _MULTIPLES:
        words = ["one", *words[1:]]
    if words[-1:] == ["dozen"]:
        return 12 * (_cardinal(words[:-1]) or 0) or None
    return _counted(words) if words else None


def _counted(words: list[str]) -> int | None:
    total, group, bound, before = 0, 0, 10**15, ""
    for word in words:
        value = _VALUES.get(word)
        fits = value and (value < 10 if before in _TENS else before not in _SMALL)
        if value is not None and (fits or len(words) == 1):
            group += value
        elif word == "hundred" and 1 <= group <= 19:
            group *= 100
        elif word in _SCALES and group and _SCALES[word] < bound and before != "and":
            bound = _SCALES[word]
            total, group = total + group * bound, 0
        elif word != "and" or before not in ("hundred", *_SCALES):
            return None
        before = word
    return None if before == "and" else total + group
