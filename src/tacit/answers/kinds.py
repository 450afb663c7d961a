"""Answers of a kind of their own: dates, times of day, remainders, and choices that are written with their text.

Builds on nothing and works on normalised strings. What cannot be read one way only (3/4/2024) is not read at all.
"""

from __future__ import annotations

import re
from functools import lru_cache

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"([0-9]{1,2})(?:st|nd|rd|th)?"
_MONTH_FIRST = re.compile(rf"(?:the )?{_MONTH} ?(?:the )?{_DAY}(?:,? ([0-9]{{4}}))?", re.IGNORECASE)
_DAY_FIRST = re.compile(rf"(?:the )?{_DAY} (?:of )?{_MONTH}(?:,? ([0-9]{{4}}))?", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})")
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))? ?([ap])\.? ?m\.?", re.IGNORECASE)
_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_REMAINDER = re.compile(r"(-?[0-9]+),? ?(?:r|rem|remainder)\.?(?: of)?:? ?([0-9]+)", re.IGNORECASE)
_CHOICE = re.compile(r"(?:(?i:option|choice|answer) )?(?:\(([A-H])\)|([A-H])[.:)])[:.]? ?([^\W_].+|[0-9])")


def date(text: str) -> tuple[int, int, int] | None:
    """Year (0 if none), month, day; also of 25/12/2024 and 5/5/2024, not of 3/4/2024 (who knows which is the month)."""
    first, last = _MONTH_FIRST.fullmatch(text), _DAY_FIRST.fullmatch(text)
    if first or last:
        month, day, year = first.groups() if first else (last[2], last[1], last[3]) if last else ("", "", "")
        return _date(int(year or 0), _MONTHS.index(month[:3].lower()) + 1, int(day))
    found = _YEAR_FIRST.fullmatch(text)
    if found is not None:
        return _date(int(found[1]), int(found[3]), int(found[4]))
    found = _YEAR_LAST.fullmatch(text)
    if found is None:
        return None
    one, other, year = int(found[1]), int(found[3]), int(found[4])
    ways = {way for way in (_date(year, one, other), _date(year, other, one)) if way is not None}
    return ways.pop() if len(ways) == 1 else None


def _date(year: int, month: int, day: int) -> tuple[int, int, int] | None:
    return (year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None


@lru_cache(maxsize=1024)
def clock(text: str) -> tuple[int, int, int] | None:
    """A time with a.m. or p.m. as hours, minutes and seconds of the day; None of anything else."""
    match = _CLOCK.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 12:
        return None
    hour = int(match[1]) % 12 + (12 if match[4].lower() == "p" else 0)
    return hour, int(match[2] or 0), int(match[3] or 0)


def hours(a: str, b: str) -> bool:
    """Whether one is a time with a.m. or p.m. and the other the same without: 15:30, or 3:30 (and 3 for 3 p.m.)."""
    for text, bare in ((a, b), (b, a)):
        known, match = clock(text), _HOURS.fullmatch(bare)
        if known is not None and match is not None:
            hour, *rest = (int(figure or 0) for figure in match.groups())
            return rest == [*known[1:]] and hour in (known[0], (known[0] - 1) % 12 + 1)
        if known is not None and known[1:] == (0, 0) and re.fullmatch("[1-9][0-9]?", bare):
            return int(bare) == (known[0] - 1) % 12 + 1
    return False


def remainder(text: str) -> tuple[int, int] | None:
    """Quotient and remainder of ``3 R 2``."""
    match = _REMAINDER.fullmatch(text)
    return (int(match[1]), int(match[2])) if match is not None and len(text) < 100 else None


def choice(text: str) -> tuple[str, str]:
    """Letter and text of ``(B) 12 cm`` and ``B: Paris``; a letter alone has no text, and anything else no letter."""
    if len(text) == 1 and text.upper() in "ABCDEFGH":
        return text.upper(), ""
    match = _CHOICE.fullmatch(text)
    if match is None or re.search(r"\([A-Ha-h]\)|(?<![\w])[A-H][.:)]", match[3]):
        return "", ""  # (A) 5 (B) 6 answers two questions
    return match[1] or match[2], match[3]
