"""Conventions of writing that differ from place to place: money, separators of thousands, repeating decimals, sayings.

Builds on nothing. Called by normalisation, in every one of its rounds.
"""

from __future__ import annotations

import re
from fractions import Fraction

# Money: the sign goes behind the number, as a word where TeX would take it for something else.
_MATHS_DOLLARS = re.compile(r"\$\$?(?=[^\s$])([^$]*)(?<=[^\s$])\$\$?(?![0-9])")
_SCALE = r"(?: (?:hundred|thousand|[mb]illion|trillion|lakh|crore)s?)?"
_AMOUNT = rf"((?:[0-9]+(?:,[0-9]{{2,3}})*(?:\.[0-9]+)?|\.[0-9]+){_SCALE})"
_AFTER_AMOUNT = r"(?![0-9a-zA-Z]|[.,][0-9]| ?[*+/^=(\\] ?[0-9(\\]|-)"
_DOLLARS = re.compile(rf"(?<![a-zA-Z])(?:USD? ?)?[¤$] ?([-+]?){_AMOUNT}{_AFTER_AMOUNT}")
_AFTER_DOLLARS = re.compile(r"(?<=[0-9]) ?¤(?![0-9])")
_CODES = r"(?<![a-zA-Z])(?:USD|EUR|GBP|INR|JPY|CNY|RMB|KRW|[Rr]s\.?)"
_SIGNED = re.compile(rf"([€£¥₹₩₽₫₺₴₦₱฿₪]|{_CODES}) ?([-+]?){_AMOUNT}{_AFTER_AMOUNT}")

_REPEATING = re.compile(
    r"(?<![0-9.])([0-9]{0,15})\.([0-9]{0,15})"
    r"(?:\\(?:overline|bar|dot) ?\{? ?([0-9]{1,15}) ?\}?(?![0-9])|\(([0-9]{1,15})\)(?=$|[ ,;)\]}%]))(?:\.\.\.)?"
)
_TRAILING = re.compile(r"(?<![0-9.])([0-9]{0,15})\.([0-9]{3,30})\.\.\.+")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
_INDIAN = re.compile(r"(?<![0-9.,])([0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})(?![0-9,])")
_SPACED = re.compile(
    r"(?<![0-9.,/^_])(?<![0-9.,] )([1-9][0-9]{0,2})(?:(?: [0-9]{3})+|(?:'[0-9]{3})+|(?:_[0-9]{3})+)"
    r"(?![0-9'_/]| [0-9/])"
)
_DOTTED = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})((?:\.[0-9]{3})+)(?:,([0-9]{1,2}))?(?![0-9.,])")

SAYINGS = {
    saying: meaning
    for meaning, sayings in {
        "true": "yes",
        "false": "no",
        "\\emptyset": "no solution|no solutions|there is no solution|there are no solutions|empty set|the empty set|"
        "\\{\\}|{}",
        "undefined": "dne|does not exist|the limit does not exist|limit does not exist|not defined|it is undefined",
        "infinitely many": "infinitely many solutions|infinite solutions|infinite number of solutions|"
        "an infinite number of solutions|there are infinitely many solutions",
        "\\mathbb{R}": "all real numbers|all reals|real numbers|the real numbers|the set of real numbers|"
        "the set of all real numbers|set of all real numbers|(-\\infty, \\infty)|\\Re",
        "12:00 pm": "noon|midday|12 noon",
        "12:00 am": "midnight|12 midnight",
    }.items()
    for saying in sayings.split("|")
}
"""What is said in several ways, after all other rules."""


def money(text: str) -> str:
    """The text with every currency sign behind its amount ("5 dollars", "5 €"), and no other dollar sign."""
    if "$" in text or "¤" in text:
        text = _MATHS_DOLLARS.sub(r"\1", text)
        text = _AFTER_DOLLARS.sub(" dollars", _DOLLARS.sub(r"\1\2 dollars", text))
        text = text.replace("$", "").replace("¤", "")
    return text if text.isascii() and not text[:8].strip("-+ (")[:1].isalpha() else _SIGNED.sub(r"\2\3 \1", text)


def repeating(text: str) -> str:
    """Repeating decimals (0.\\overline{3}, 0.(3), 0.333...) as the fractions that they are."""
    return _TRAILING.sub(_trailing, _REPEATING.sub(_repeating, text)) if "." in text else text


def thousands(text: str) -> str:
    """Whole numbers without separators between their groups; inside brackets a comma separates elements."""
    if "," in text and not any(bracket in text for bracket in ("(", "[", "\\{")):
        text = _INDIAN.sub(_joined, _THOUSANDS.sub(_joined, text))
    return _DOTTED.sub(_undotted, _SPACED.sub(_joined, text))


def _repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} as the fraction that it is."""
    whole, fixed, bar, bracket = match.groups()
    return _fraction(whole, fixed, bar or bracket)


def _trailing(match: re.Match[str]) -> str:
    """0.1666... as a fraction: one figure at least three times at the end, or more of them at least twice. What goes
    back farther is what repeats: 0.01110111... is no run of ones."""
    ways = (re.search(r"([0-9])\1\1+$", match[2]), re.search(r"([0-9]{2,6})\1+$", match[2]))
    found = min((way for way in ways if way), key=lambda way: way.start(), default=None)
    return _fraction(match[1], match[2][: found.start()], found[1]) if found else match[0]


def _fraction(whole: str, fixed: str, period: str) -> str:
    value = Fraction(f"{whole or 0}.{fixed or 0}")
    value += Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _joined(match: re.Match[str]) -> str:
    return re.sub("[^0-9]", "", match[0])


def _undotted(match: re.Match[str]) -> str:
    """1.234.567 and 1.234,5 are thousands; 1.234 is a decimal."""
    if match[2].count(".") < 2 and match[3] is None:
        return match[0]
    return match[1] + match[2].replace(".", "") + (f".{match[3]}" if match[3] else "")
