"""Exact values of plain numbers, and which strings of figures are none: ``number`` and ``joined``.

Builds on nothing; works on normalised strings.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"([+-]?{_DECIMAL}(?:[eE][+-]?[0-9]{{1,3}})?)")
_FRACTION = re.compile(
    rf"([+-]?)(?:([0-9]+)(?: ?(?=\\frac)| (?=[0-9])))?"
    rf"(?:\\frac\{{([+-]?{_DECIMAL})\}}\{{([+-]?{_DECIMAL})\}}|({_DECIMAL})/({_DECIMAL}))"
)
_SCIENTIFIC = re.compile(
    rf"([+-]?)(?:({_DECIMAL})(?:\\times ?|\\cdot ?|\*| ?x ?))?10\^"
    r"(?:\{([+-]?[0-9]{1,3})\}|\(?([+-]?[0-9]{1,3})\)?)"
)
_FIGURES = re.compile(r"(?:[-+*/().:%0-9{} ]|\\times|\\cdot|\\frac|(?<=[0-9]) ?x ?(?=[0-9]))+")
_JOINT = re.compile(r"[0-9)}%] ?(?:[-+*x(]|\\times|\\cdot)|[0-9] [0-9(]|\.[0-9]*\.|[)}][0-9]|[/:].*[/:]")
_RATIO = re.compile(rf"{_DECIMAL}(?::{_DECIMAL})+")
_RANGE = re.compile(rf"(?:from )?({_DECIMAL})-({_DECIMAL})|(?:from )?({_DECIMAL}) (?:to|through) ({_DECIMAL})")


@lru_cache(maxsize=4096)
def number(text: str) -> Fraction | None:
    """The exact value of a plain number (integer, decimal, e-notation or times a power of ten, fraction, mixed number),
    or None."""
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    power = _SCIENTIFIC.fullmatch(text)
    if power is not None:
        value = Fraction(power[2] or 1) * Fraction(10) ** int(power[3] or power[4])
        return -value if power[1] == "-" else value
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    sign, whole, top, bottom, slash_top, slash_bottom = match.groups()
    above, below = Fraction(top or slash_top), Fraction(bottom or slash_bottom)
    if below == 0 or (whole and (above < 0 or below < 0)):
        return None
    value = Fraction(whole or 0) + above / below
    return -value if sign == "-" else value


@lru_cache(maxsize=4096)
def joined(text: str) -> frozenset[str]:
    """Ways of writing figures that are joined and are not one number: a range, score, date or phone number (10-20,
    12/25/2024, 555-1234), a ratio in words (3 to 4), a sum or product that nobody has worked out (7*5). They are never
    computed. Empty for everything else."""
    found = _RANGE.fullmatch(text)
    if found is not None:
        low, high = found[1] or found[3], found[2] or found[4]
        return frozenset([f"{low}-{high}"] if found[1] else [f"{low}-{high}", _ratio([low, high])])
    if not _FIGURES.fullmatch(text) or number(text) is not None:
        return frozenset()
    if _RATIO.fullmatch(text):
        return frozenset([_ratio(text.split(":"))])
    if not _JOINT.search(text) and text.count("\\frac") < 2 and not ("/" in text and ("\\frac" in text or ":" in text)):
        return frozenset()
    text = re.sub(r" ?(?:\\times|\\cdot|x) ?", "*", text).replace("%", "")
    for sign in "*+":
        parts = text.split(sign)
        if len(parts) > 1 and all(_PLAIN.fullmatch(part) for part in parts):
            text = sign.join(sorted(parts))
    return frozenset([text])


def _ratio(figures: list[str]) -> str:
    """3.0:4 is 3:4 and 03:30 is 3:30, but 3:04 is not 3:4."""
    return ":".join(
        figure if place and figure.startswith("0") and figure[1:] else str(Fraction(figure))
        for place, figure in enumerate(figures)
    )
