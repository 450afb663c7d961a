"""Numbers: the last one of a response is its answer, unless it states another.

Builds on stated, and on answers for numbers in words. Values are fractions, never floats: .5 is 1/2, 0.333 is not 1/3.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from tacit.answers.normalisation import normalise
from tacit.answers.number_words import in_figures
from tacit.answers.numbers import number as known
from tacit.registry import register
from tacit.tasks.stated import Stated, ending, statement

LONGEST = 1000
"""Most characters of a number as it is written; what is longer is none."""
BITS = 1000
"""Most bits of a number's numerator and denominator together."""
PLACES = 30
"""Most decimal places that a value is spelled with; one that needs more is spelled as a fraction."""

# Digits in groups of three (after a comma or a narrow or plain space), Indian groups, or as they come.
_INTEGER = (
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"
    r"|\d{1,3},[ ]000(?!\d)|\d+)"
)
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[-+])?(?:(?P<whole>\d+)(?:[ ]and)?[ ](?=\d+/\d))?(?P<above>{_DECIMAL})"
    rf"(?:[ ]?/[ ]?(?P<below>{_DECIMAL}))?"
    r"(?:(?:[eE]|[ ]?(?:\\times|×|\*|x)[ ]?10[ ]?\^[ ]?\{?)(?P<power>[-+]?\d{1,3})(?!\d)\}?)?"
    r"(?:[ ]?(?P<scale>hundred|thousand|million|billion|trillion|dozen)\b)?",
    re.IGNORECASE,
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
# What a number must not touch: it would be part of an expression, a range, a date, a time, a list or a name.
_BEFORE = re.compile(
    r"(?:[A-Za-z\d.,:/^_*\\-]|[\d)][ ]?-[ ]|[\w)][ ]?[+*/×÷^][ ]?|(?:step|part|case|question|problem|example)[ ])\Z",
    re.I,
)
_AFTER = re.compile(r"[ ]?[-/:^*×÷+·][ ]?[\d(]|,\d|\.\d|_\d")
_ITEM = re.compile(r"^[ ]*\d{1,2}[.)][ ]+(?=\S)", re.MULTILINE)
_JOINED = re.compile(r"[ ]*(?:[^\W\d]+[ ]+){0,2}(?:and|or|to|[,;&])[ ]*", re.IGNORECASE)
_SEVERAL = re.compile(r"=[^=]*(?:\b(?:and|or)\b|[,;])[^=]*=|\\begin\b")
_FRACTION = re.compile(r"\\[dtc]?frac[ ]?(?:\{[ ]?([^{}]{1,300}?)[ ]?\}[ ]?\{[ ]?([^{}]{1,300}?)[ ]?\}|(\d)[ ]?(\d))")
_TYPESETTING = re.compile(r"\\[()\[\]!$;]|\\(?:text|mathrm|mathbf|textbf)(?=[ ]?\{)|(?<!\w)\*\*|\*\*(?!\w)|`|[$€£¥₹￥]")
_SPACES = re.compile(r"\\[, ]|~|[ \t]{2,}")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "，": ",", "．": ".", "⁄": "/", "＋": "+"}
)
# An expression that the token limit cut: "a total of 3 ×". A remark after the result: "24 (6 rows of 4)".
_UNFINISHED = re.compile(r"(?:[-+*/×÷=^(−–]|\\(?:times|div|cdot)|(?<=\d) ?[xX]) *\Z")
_REMARK = re.compile(r"(?<=\d) *(?:[^\W\d]{1,20} *){0,2}(\((?=[^()]*[^\W\d_]{2})[^()]{1,200}\))[\s.!]*\Z")
_ALONE = re.compile(r"^ *[-] (?=[\d.])")
_OPEN_BOX = re.compile(r"boxed[ ]?\{[^{}]*\Z")


def plain(text: str) -> str:
    """A text with its numbers written plainly: without currency and typesetting, fractions with a stroke."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
        text = "".join(
            f" {unicodedata.normalize('NFKC', char)}"
            if unicodedata.decomposition(char).startswith("<fraction>")
            else char
            for char in text
        ).translate(_CHARACTERS)
    text = _FRACTION.sub(lambda match: f" {match[1] or match[3]}/{match[2] or match[4]}", text.replace("{,}", ","))
    return _SPACES.sub(" ", _TYPESETTING.sub("", text))


def numbers(text: str) -> Iterator[tuple[re.Match[str], Fraction]]:
    """The numbers of a plain text that stand for themselves, with their values."""
    for match in _NUMBER.finditer(text):
        before = text[max(match.start() - 12, 0) : match.start()]
        if not _BEFORE.search(before) and not _AFTER.match(text, match.end()):
            found = _value(match)
            if found is not None:
                yield match, found


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > LONGEST:
        return None
    above, below = (Fraction(re.sub(r"[^\d.]", "", match[name] or "1")) for name in ("above", "below"))
    if not below:
        return None
    value = Fraction(match["whole"] or 0) + above / below
    value *= Fraction(10) ** int(match["power"] or 0) * _SCALES.get((match["scale"] or "").lower(), 1)
    if value.numerator.bit_length() + value.denominator.bit_length() > BITS:
        return None
    return -value if match["sign"] == "-" else value


def value(text: str) -> Fraction | None:
    """What a text is worth that is a number and no more, but for currency and percent; None if it is none."""
    if len(text) > 2 * LONGEST:
        return None
    match = _NUMBER.fullmatch(plain(text).strip().rstrip(" .%\\"))
    return known(normalise(text)) if match is None else _value(match)


def spelled(value: Fraction) -> str:
    """One way of writing each value: whole, as a decimal if that ends, else as a fraction."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest > 1 or not 0 < places <= PLACES:
        return str(value)
    digits = str(abs(value.numerator) * (10**places // value.denominator)).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


@register("task", "number")
class Number(Stated):
    """A number: the stated one, else the last one.

    Units, currency and percent signs are left aside; numbers are compared by their exact values.
    """

    instruction = 'Please reason step by step, and end with "The answer is" and the number alone.'
    wanted = "a number"

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        found = None if phrase is None else self.read(phrase)
        if found is not None or any(map(str.isdecimal, phrase or "")):
            return found  # what is stated and is no single number is looked for nowhere else
        return self.unstated(ending(text))

    def read(self, phrase: str) -> str | None:
        whole = value(phrase)
        if whole is not None:
            return spelled(whole)
        said = _ALONE.sub("-", in_figures(plain(phrase)))
        last = said.rpartition("=")[2]
        found = list(islice(numbers(last), 2)) or list(islice(numbers(said), 2))
        if (
            not found
            or _SEVERAL.search(said)
            or (len(found) == 2 and _JOINED.fullmatch(last, found[0][0].end(), found[1][0].start()))
        ):
            return None  # none, or "3 and 5", which are two
        return spelled(found[0][1])

    def unstated(self, text: str) -> str | None:
        said = plain(text)
        if _OPEN_BOX.search(said) or _UNFINISHED.search(said):
            return None  # cut by the token limit: who knows how the number goes on
        if remark := _REMARK.search(said, max(len(said) - 300, 0)):
            said = said[: remark.start(1)]
        if len(_ITEM.findall(said)) > 1:
            said = _ITEM.sub("", said)
        last = deque(numbers(said), maxlen=1)
        return spelled(last[0][1]) if last else None

    def same(self, one: str, other: str) -> bool:
        return one == other or ((found := value(one)) is not None and found == value(other))
